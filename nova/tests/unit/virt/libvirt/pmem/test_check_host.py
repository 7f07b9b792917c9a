# SPDX-License-Identifier: Apache-2.0

import os
import shutil
import sys
import time
from unittest import mock

import ddt
import fixtures

from nova import test
from nova.tests import fixtures as nova_fixtures
from nova.tests.fixtures import pmem
from nova.virt.libvirt.pmem import check_host

MIB = 1024 * 1024


def seen(name='ns0', size=4 * MIB, align=2 * MIB, bad=None):
    return check_host.Seen(name, size, align, '/dev/dax0.0', bad)


@ddt.ddt
class JudgeTestCase(test.NoDBTestCase):

    @ddt.data(
        ([], 'is empty'),
        (['SMALL'], "'SMALL'"),
        ([':ns0'], "':ns0'"),
        (['SMALL:'], "'SMALL:'"),
        (['SMALL:ns0||ns1'], "'SMALL:ns0||ns1'"),
        (['SMALL:ns0|ns1', 'LARGE:ns1'], 'more than once: ns1'))
    @ddt.unpack
    def test_configuration_that_is_wrong(self, groups, words):
        error = self.assertRaises(
            check_host.Wrong, check_host.configured_names, groups)
        self.assertIn(words, str(error))

    def test_configuration(self):
        self.assertEqual(['a', 'b', 'c:d'], check_host.configured_names(
            ['SMALL:a|b', 'LARGE:c:d']))

    @ddt.data(
        ([], (), 'ns0 is missing'),
        ([seen('ns1')], (), 'ns0 is missing'),
        ([seen()], ('ns0',), 'ns0 is there twice'),
        ([seen(bad='8 bad blocks')], (), 'ns0 has 8 bad blocks'),
        ([seen(size=3 * MIB)], (), 'not aligned to 2097152'))
    @ddt.unpack
    def test_namespace_that_is_wrong(self, found, odd, words):
        error = self.assertRaises(
            check_host.Wrong, check_host.judge_namespaces, ['ns0'], found,
            odd)
        self.assertIn(words, str(error))

    def test_all_that_is_wrong_is_said(self):
        error = self.assertRaises(
            check_host.Wrong, check_host.judge_namespaces, ['ns0', 'ns1'],
            [], ['ns1'])
        self.assertIn('ns0', str(error))
        self.assertIn('ns1', str(error))

    def test_namespaces(self):
        self.assertEqual('ns0 4 MiB by 2, ns1 3 MiB',
                         check_host.judge_namespaces(
                             ['ns0', 'ns1'],
                             [seen('ns1', 3 * MIB, 0), seen(), seen('ns2')],
                             ['ns3']))


class LookTestCase(test.NoDBTestCase):
    """What is looked at, on a host that has all that it needs."""

    def setUp(self):
        super().setUp()
        self.useFixture(nova_fixtures.PrivsepFixture())
        self.useFixture(fixtures.MockPatchObject(check_host, 'TIMEOUT', 10))
        self.state = self.useFixture(fixtures.TempDir()).path
        self.pmem = self.useFixture(pmem.PmemHosts([]))
        self.pmem.add_namespace('ns0', 2 * MIB)
        self.flags(state_path=self.state, config_file=['nova.conf'])
        self.flags(pmem_namespaces=['SMALL:ns0'], group='libvirt')

    def lines(self, check):
        return list(check_host.CHECKS[check]())

    def wrong(self, check):
        return str(self.assertRaises(check_host.Wrong, self.lines, check))

    def assert_ok(self, check, *words):
        lines = self.lines(check)
        self.assertEqual([True] * len(words), [line.ok for line in lines])
        for line, word in zip(lines, words):
            self.assertIn(word, line.text)

    def test_no_configuration(self):
        self.flags(config_file=[])
        self.assertIn('--config-file', self.wrong('configuration'))

    def test_configuration(self):
        self.assert_ok('configuration', 'nova.conf')

    def test_tokens(self):
        self.assertIn('send_service_user_token', self.wrong('tokens'))
        self.flags(send_service_user_token=True, group='service_user')
        self.assert_ok('tokens', 'of its own')

    def test_state_path_that_is_not_there(self):
        self.flags(state_path=self.state + '/none')
        self.assertIn('No such file', self.wrong('state path'))

    def test_state_path_of_somebody_else(self):
        with mock.patch('os.geteuid', return_value=1234567):
            self.assertIn('run this as', self.wrong('state path'))

    def test_folder_that_can_not_be_written(self):
        folder = self.state + '/pmem-copy'
        os.mkdir(folder)
        with mock.patch('tempfile.TemporaryFile', side_effect=OSError(
                13, 'Permission denied', folder)):
            self.assertIn('Permission denied', self.wrong('state path'))

    def test_disk_that_is_full(self):
        with mock.patch('tempfile.TemporaryFile', side_effect=(
                lambda dir: open('/dev/full', 'wb'))):
            self.assertIn('No space left', self.wrong('state path'))

    def test_daxio_that_root_does_not_find(self):
        with mock.patch('nova.privsep.pmem.check_daxio',
                        side_effect=FileNotFoundError(2, 'none', 'daxio')):
            self.assertIn('not found by root', self.wrong('daxio'))

    def test_state_path(self):
        self.assert_ok('state path', 'will be made')
        self.assertEqual([], os.listdir(self.state))
        os.mkdir(self.state + '/pmem-copy')
        self.assert_ok('state path', self.state + '/pmem-copy')

    def test_state_path_that_is_too_long(self):
        # 107 bytes less the folder, a uuid, and what ssh's socket has on top
        self.flags(state_path='/' + 'x' * 47)
        self.assertIn('shorter by 1 bytes', self.wrong('sockets'))
        self.flags(state_path='/' + 'x' * 46)
        self.assert_ok('sockets', 'short enough')

    def test_ndctl_that_fails(self):
        self.pmem.inject('exit', tool='ndctl', status=1, repeat=True,
                         message='no bus')
        self.assertIn('ndctl is installed', self.wrong('ndctl'))

    def test_ndctl_that_hangs(self):
        self.useFixture(fixtures.MockPatchObject(check_host, 'TIMEOUT', 1))
        self.pmem.inject('hang', tool='ndctl', repeat=True)
        self.assertIn('no answer in 1 seconds', self.wrong('ndctl'))
        self.assertEqual([], self.pmem.tools())

    def test_privsep_that_does_not_start(self):
        with mock.patch('nova.privsep.libvirt.get_pmem_namespaces',
                        side_effect=Exception('privsep helper is not there')):
            self.assertIn('as nova-compute does', self.wrong('ndctl'))

    def test_namespace_that_is_not_configured_well(self):
        self.flags(pmem_namespaces=['SMALL:ns0|ns1'], group='libvirt')
        self.assertEqual([True, False, True],
                         [line.ok for line in self.lines('ndctl')])

    def test_nothing_configured(self):
        self.flags(pmem_namespaces=[], group='libvirt')
        ndctl, namespaces = self.lines('ndctl')
        self.assertIs(False, namespaces.ok)
        self.assertIn('is empty', namespaces.text)

    def test_bad_blocks(self):
        self.pmem.mark_bad('ns0', 512, 1024)
        self.assertIn('2 bad blocks, the first at byte 512',
                      self.lines('ndctl')[1].text)

    def test_name_that_is_there_twice(self):
        self.pmem.add_namespace('other', 2 * MIB, listed='ns0')
        self.assertIn('ns0 is there twice', self.lines('ndctl')[1].text)

    def test_node_of_another_size(self):
        with open(self.pmem.path('ns0'), 'ab') as node:
            node.truncate(4 * MIB)
        line = self.lines('ndctl')[2]
        self.assertIs(False, line.ok)
        self.assertIn('has 4194304 bytes and not 2097152', line.text)

    def test_node_that_is_not_there(self):
        os.unlink(self.pmem.path('ns0'))
        self.assertIn('No such file', self.lines('ndctl')[2].text)

    def test_devices(self):
        self.assert_ok('ndctl', 'lists 1 ', 'ns0 2 MiB by 2',
                       self.pmem.path('ns0'))

    def test_no_daxio(self):
        self.useFixture(fixtures.EnvironmentVariable('PATH', self.state))
        self.assertIn('not found', self.wrong('daxio'))

    def tool(self, text):
        path = self.state + '/daxio'
        with open(path, 'w') as tool:
            tool.write('#!/bin/sh\n' + text)
        os.chmod(path, 0o755)
        self.useFixture(fixtures.EnvironmentVariable(
            'PATH', self.state + ':' + os.environ['PATH']))

    def test_daxio_that_fails(self):
        self.tool('echo no such library >&2; exit 3')
        self.assertIn('status 3: no such library', self.wrong('daxio'))

    def test_daxio_that_hangs(self):
        self.useFixture(fixtures.MockPatchObject(check_host, 'TIMEOUT', 1))
        self.tool('exec sleep 1000')
        began = time.monotonic()
        self.assertIn('timed out', self.wrong('daxio'))
        self.assertLess(time.monotonic() - began, 60)

    def test_daxio(self):
        self.assert_ok('daxio', shutil.which('daxio') + ', version 1.12.1')

    def test_what_is_apart_has_no_terminal(self):
        self.assertEqual(0, check_host.apart(
            lambda: os.getsid(0) - os.getpid()))

    def test_what_is_said_apart_is_told_if_it_fails(self):
        def fail():
            os.write(1, b'a\nb\n')
            os.write(2, b'sudo: no password\nend\n')
            raise ValueError('bad')
        error = self.assertRaises(check_host.Wrong, check_host.apart, fail)
        self.assertEqual('bad / b / sudo: no password / end', str(error))

    def test_what_is_apart_dies(self):
        error = self.assertRaises(
            check_host.Wrong, check_host.apart, lambda: os._exit(0))
        self.assertIn('without an answer', str(error))

    def test_program_that_is_not_there(self):
        self.assertRaises(check_host.Wrong, check_host.run, '/nonexistent')

    def test_program(self):
        self.assertEqual((3, 'out', 'err'), check_host.run(
            sys.executable, '-c', 'import sys; sys.stdout.write("out");'
            'sys.stderr.write("err" + sys.stdin.read()); sys.exit(3)'))
