# SPDX-License-Identifier: Apache-2.0

import io
import os
import subprocess
import sys

import ddt
import fixtures
from oslo_serialization import jsonutils

from nova.cmd import pmem_copy
from nova import test
from nova.tests import fixtures as nova_fixtures
from nova.tests.fixtures import pmem
from nova.virt.libvirt.pmem import check_host
from nova.virt.libvirt.pmem import check_peer

MIB = 1024 * 1024
ADDRESS = '127.0.0.1'
GOOD = check_host.Line('one', True, 'fine')
UNKNOWN = check_host.Line('two', None, 'who knows')
BAD = check_host.Line('three', False, 'broken: mend it')


class CommandTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        self.output = io.StringIO()
        self.useFixture(fixtures.MonkeyPatch('sys.stdout', self.output))

    def use(self, module, **checks):
        self.useFixture(fixtures.MockPatchObject(module, 'CHECKS', checks))

    def report(self, *lines, as_json=False):
        return pmem_copy.report(iter(lines), as_json)


@ddt.ddt
class ReportTestCase(CommandTestCase):

    @ddt.data(([BAD], 1), ([GOOD, BAD, GOOD], 1), ([GOOD, UNKNOWN], 0),
              ([GOOD], 0))
    @ddt.unpack
    def test_status(self, lines, status):
        self.assertEqual(status, self.report(*lines))
        self.assertEqual(status, self.report(*lines, as_json=True))

    def test_text(self):
        self.report(GOOD, UNKNOWN, BAD)
        self.assertEqual(
            'one            ok: fine\n'
            'two            not known: who knows\n'
            'three          WRONG: broken: mend it\n', self.output.getvalue())

    def test_json(self):
        self.report(GOOD, UNKNOWN, BAD, as_json=True)
        self.assertEqual({'ok': False, 'protocol': 2, 'checks': [
            {'name': 'one', 'ok': True, 'text': 'fine'},
            {'name': 'two', 'ok': None, 'text': 'who knows'},
            {'name': 'three', 'ok': False, 'text': 'broken: mend it'}]},
            jsonutils.loads(self.output.getvalue()))


@ddt.ddt
class CheckTestCase(CommandTestCase):

    @staticmethod
    def _raising(error):
        def look(*args):
            yield GOOD
            raise error
        return look

    @ddt.data(check_host.Wrong('bad'), OSError(13, 'bad'),
              ValueError('bad'))
    def test_what_fails_is_a_line_and_the_others_are_looked_at(self, error):
        self.use(check_host, first=self._raising(error),
                 second=lambda: [GOOD])
        lines = list(pmem_copy.check(None))
        self.assertEqual([True, False, True], [line.ok for line in lines])
        self.assertEqual('first', lines[1].name)
        self.assertIn('bad', lines[1].text)

    def test_peer_is_not_looked_at_unasked(self):
        self.use(check_host, one=lambda: [GOOD])
        self.use(check_peer, two=lambda peer: [BAD])
        self.assertEqual([GOOD], list(pmem_copy.check(None)))
        # As in a script whose variable was not set.
        self.assertEqual([GOOD, BAD], list(pmem_copy.check('')))

    def test_nothing_is_sought_at_a_peer_that_is_not_reached(self):
        self.use(check_host, one=lambda: [BAD])
        self.use(check_peer, two=self._raising(check_host.Wrong(ADDRESS)),
                 three=lambda peer: [GOOD])
        self.assertEqual(['three', 'one', 'two'],
                         [line.name for line in pmem_copy.check(ADDRESS)])

    def test_words_of_a_peer_make_no_lines_of_their_own(self):
        self.use(check_host)
        self.use(check_peer,
                 one=lambda peer: [GOOD._replace(text='a\nb\x1b[2J')],
                 two=self._raising(check_host.Wrong('c\nd' + 'x' * 5000)))
        lines = list(pmem_copy.check(ADDRESS))
        self.assertEqual('a\\nb\\x1b[2J', lines[0].text)
        self.assertTrue(lines[-1].text.startswith('c\\nd'))
        self.assertLess(len(lines[-1].text), 2000)

    def test_host_and_peer(self):
        """All of it, on a host that is set up well."""
        self.useFixture(nova_fixtures.PrivsepFixture())
        hosts = self.useFixture(pmem.PmemHosts([ADDRESS]))
        hosts.add_namespace('ns0', 2 * MIB)
        state = self.useFixture(fixtures.TempDir()).path
        self.flags(state_path=state, config_file=['nova.conf'])
        self.flags(pmem_namespaces=['SMALL:ns0'], group='libvirt')
        self.flags(send_service_user_token=True, group='service_user')
        lines = list(pmem_copy.check(ADDRESS))
        self.assertEqual(
            ['configuration', 'tokens', 'state path', 'sockets', 'ndctl',
             'namespaces', 'device nodes', 'daxio', 'ssh', 'cipher', 'clock',
             'speed', 'forwarding', 'peer'],
            [line.name for line in lines], lines)
        # The command is not on the PATH of the login.
        self.assertEqual([True] * 13 + [None],
                         [line.ok for line in lines], lines)
        self.assertEqual([], os.listdir(state))


class ProcessTestCase(test.NoDBTestCase):
    """The command as it is started."""

    def setUp(self):
        super().setUp()
        self.folder = self.useFixture(fixtures.TempDir()).path
        self.conf = os.path.join(self.folder, 'nova.conf')

    def start(self, *arguments, helper='false', more=''):
        with open(self.conf, 'w') as file:
            file.write('[DEFAULT]\nstate_path = %s\n'
                       '[nova_sys_admin]\nhelper_command = %s\n%s'
                       % (self.folder, helper, more))
        # As an operator has it: the tests are started with this variable.
        environment = dict(os.environ)
        environment.pop('OS_NOVA_DISABLE_EVENTLET_PATCHING', None)
        return subprocess.Popen(
            [sys.executable, '-m', 'nova.cmd.pmem_copy', *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment)

    def run_it(self, *arguments, **options):
        process = self.start(*arguments, **options)
        output, errors = process.communicate(timeout=100)
        return subprocess.CompletedProcess(
            arguments, process.returncode, output, errors)

    def test_no_command(self):
        done = self.run_it('--config-file', self.conf)
        self.assertEqual(2, done.returncode, done)
        self.assertIn('usage: nova-pmem-copy', done.stderr)

    def test_configuration_that_is_not_there(self):
        done = self.run_it('--config-file', '/nonexistent', 'check')
        self.assertEqual(1, done.returncode, done)
        self.assertIn('configuration  WRONG: ', done.stdout)
        self.assertIn('/nonexistent', done.stdout)
        self.assertNotIn('Traceback', done.stderr)

    def test_option_that_can_not_be_so(self):
        done = self.run_it('--config-file', self.conf, 'check', '--json',
                           more='[libvirt]\npmem_copy_streams = 100\n')
        first, *others = jsonutils.loads(done.stdout)['checks']
        self.assertEqual(('configuration', False),
                         (first['name'], first['ok']))
        self.assertIn('pmem_copy_streams', first['text'])
        self.assertTrue(others)

    def test_one_that_is_told_to_end_does_so_in_order(self):
        begun = os.path.join(self.folder, 'begun')
        os.mkfifo(begun)
        helper = os.path.join(self.folder, 'helper')
        with open(helper, 'w') as file:
            file.write('#!/bin/sh\necho > %s\nexec sleep 1000\n' % begun)
        os.chmod(helper, 0o700)
        process = self.start('--config-file', self.conf, 'check',
                             helper=helper)
        with open(begun) as pipe:
            pipe.read()
        process.terminate()
        process.communicate(timeout=100)
        self.assertEqual(128 + 15, process.returncode)

    def test_privsep_that_does_not_start(self):
        done = self.run_it('--config-file', self.conf, 'check', '--json')
        self.assertEqual(1, done.returncode, done)
        told = {each['name']: each
                for each in jsonutils.loads(done.stdout)['checks']}
        self.assertTrue(told['configuration']['ok'])
        self.assertIs(False, told['ndctl']['ok'])
        self.assertIn('run this as nova-compute does', told['ndctl']['text'])
        self.assertNotIn('Traceback', done.stderr)
