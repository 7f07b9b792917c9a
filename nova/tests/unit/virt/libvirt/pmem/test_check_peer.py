# SPDX-License-Identifier: Apache-2.0

import os

import ddt
import fixtures

from nova import test
from nova.tests.fixtures import pmem
from nova.virt.libvirt.pmem import check_host
from nova.virt.libvirt.pmem import check_peer

ADDRESS = '127.0.0.1'

DEBUG = """\
OpenSSH_9.2p1
debug1: kex: server->client cipher: aes256-ctr MAC: x compression: none
debug1: kex: client->server cipher: aes128-gcm@openssh.com MAC: <implicit>
Welcome
debug1: kex: client->server cipher: none MAC: <implicit>
Authenticated to 192.0.2.7 ([192.0.2.7]:22) using "publickey".
"""


@ddt.ddt
class JudgeTestCase(test.NoDBTestCase):

    @ddt.data(
        ('', 'no answer in 20 seconds'),
        ('debug1: identity file x\n', 'no answer'),
        ('x: Permission denied (publickey).', 'authorized_keys'),
        ('No key is known.\nHost key verification failed.\n', 'known_hosts'),
        ('ssh: connect to host x port 22: Connection refused', 'start sshd'),
        ('ssh: connect to host x: Connection timed out', 'firewalls'),
        ('ssh: connect to host x: No route to host', 'network'),
        ('Could not resolve hostname x', 'migration_inbound_addr'),
        ('Unable to negotiate: no matching cipher', 'pmem_copy_ciphers'),
        ("command-line line 0: Bad SSH2 cipher spec '^x'.", 'pmem_copy_ci'),
        ('something else', 'something else'))
    @ddt.unpack
    def test_what_ssh_says_of_failure(self, words, expected):
        self.assertIn(expected, check_peer.explain(words))

    def test_what_ssh_says_is_kept_and_its_debugging_is_not(self):
        told = check_peer.explain(DEBUG + 'a: Permission denied.\n')
        self.assertIn('a: Permission denied.', told)
        self.assertNotIn('debug', told)

    @ddt.data('', 'debug1: kex: server->client cipher: x', 'cipher: x')
    def test_no_cipher(self, words):
        self.assertIsNone(check_peer.cipher_of(words).ok)

    def test_cipher_is_not_what_a_banner_says(self):
        self.assertEqual('aes128-gcm@openssh.com',
                         check_peer.cipher_of(DEBUG).text)

    @ddt.data(b'', b'\n', b'Welcome\n', b'nan\n', b'inf\n', b'-5\n',
              b'1e300\n', b'\xff\n')
    def test_no_clock(self, answer):
        self.assertIsNone(check_peer.clock_of(answer, 100, 101).ok)

    @ddt.data(
        (b'89.5\n', False, '10.5 seconds'), (b'94.9\n', False, '5.1'),
        (b'106.1\n', False, '5.1'), (b'95.5\n', True, '4.5 seconds'),
        (b'100.5\n', True, '0.0'), (b'101\n', True, '0.0'))
    @ddt.unpack
    def test_clock(self, answer, ok, words):
        line = check_peer.clock_of(answer, 100, 101)
        self.assertIs(ok, line.ok)
        self.assertIn(words, line.text)

    @ddt.data(
        (0, 'Welcome', 'nova-pmem-join: /s/x: no', 'prints'),
        (127, '', 'sh: 1: nova-pmem-join: not found', 'status 127'),
        (126, '', 'sh: /s/x: Permission denied', 'status 126'),
        (255, '', 'ssh: connect to host x: No route to host', 'network'),
        (1, '', 'rejected: "nova-pmem-join /s/x" is not allowed', 'status 1'),
        (1, '', 'sudo: a password is required for join /s/x', 'status 1'),
        (0, '', '', 'status 0'))
    @ddt.unpack
    def test_join_command_that_is_wrong(self, status, output, words,
                                        expected):
        error = self.assertRaises(
            check_host.Wrong, check_peer.judge_join, '/s/x', status, output,
            words)
        self.assertIn(expected, str(error))

    def test_host_that_looks_like_an_option(self):
        self.assertEqual(['-N', '--', '-oProxyCommand=x', 'date'],
                         check_peer._argv('-oProxyCommand=x', ['-N'],
                                          'date')[-4:])

    @ddt.data(
        ('', None, 'does not run'), ('[]', None, 'does not run'),
        ('{"checks": 5}', None, 'does not run'),
        ('{"checks": [5]}', None, 'does not run'),
        ('{"checks": []}', None, 'of another version'),
        ('{"protocol": 1, "checks": []}', False, 'speaks version 1'),
        ('{"protocol": 2, "checks": []}', True, 'nothing wrong'),
        ('{"protocol": 2, "checks": [{"name": "speed", "ok": null, '
         '"text": "?"}]}', True, 'nothing wrong'),
        ('{"protocol": 2, "checks": [{"name": "daxio", "ok": false, '
         '"text": "gone"}, {"name": "ndctl", "ok": true, "text": ""}]}',
         False, 'it finds there: daxio: gone'),
        ('{"protocol": 2, "checks": [{"name": "configuration", "ok": false, '
         '"text": "x"}]}', None, 'configuration of nova-compute'))
    @ddt.unpack
    def test_what_a_peer_finds(self, answer, ok, words):
        line = check_peer.judge_own(answer)
        self.assertIs(ok, line.ok)
        self.assertIn(words, line.text)

    def test_join_command(self):
        self.flags(pmem_copy_join_command='join', group='libvirt')
        self.assertEqual('join', check_peer.judge_join(
            '/s/x', 255, '', 'nova-pmem-join: /s/x: No such file'))


class PeerTestCase(test.NoDBTestCase):
    """A peer on the same machine, with an sshd of its own."""

    CONFIG = ''

    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.MockPatchObject(check_peer, 'LISTENERS', ()))
        self.state = self.useFixture(fixtures.TempDir()).path
        self.flags(state_path=self.state)
        self.pmem = self.useFixture(pmem.PmemHosts(
            [ADDRESS], sshd_config=self.CONFIG))

    def lines(self, check, peer=ADDRESS):
        return list(check_peer.CHECKS[check](peer))

    def wrong(self, check, peer=ADDRESS):
        error = str(self.assertRaises(
            check_host.Wrong, self.lines, check, peer))
        self.assertEqual([], os.listdir(self.state))
        return error

    def assert_ok(self, check, *words):
        lines = self.lines(check)
        self.assertEqual([True] * len(words), [line.ok for line in lines],
                         lines)
        for line, word in zip(lines, words):
            self.assertIn(word, line.text)
        self.assertEqual([], os.listdir(self.state))

    def tool(self, text):
        folder = self.useFixture(fixtures.TempDir()).path
        with open(folder + '/ssh', 'w') as tool:
            tool.write('#!/bin/sh\n' + text)
        os.chmod(folder + '/ssh', 0o755)
        self.useFixture(fixtures.EnvironmentVariable(
            'PATH', folder + ':' + os.environ['PATH']))


class LoginTestCase(PeerTestCase):

    def test_nobody_there(self):
        self.assertIn('refused', self.wrong('ssh', '127.0.0.9'))
        self.assertIn('refused', self.wrong('forwarding', '127.0.0.9'))

    def test_ssh_that_is_not_there(self):
        self.useFixture(fixtures.EnvironmentVariable('PATH', self.state))
        self.assertIn('did not start', self.wrong('ssh'))

    def test_ssh_that_hangs(self):
        self.useFixture(fixtures.MockPatchObject(check_peer, 'TIMEOUT', 1))
        self.tool('exec sleep 1000')
        self.assertIn('no answer in 1 seconds', self.wrong('ssh'))
        self.assertIn('no answer in 1 seconds', self.wrong('forwarding'))

    def test_login(self):
        self.flags(pmem_copy_streams=3, group='libvirt')
        self.assert_ok('ssh', 'logs in', 'aes128-gcm', 'seconds apart',
                       'MiB/s over one of 3')

    def test_way(self):
        self.assert_ok('forwarding', 'forwards')

    def test_way_with_a_long_path_for_temporary_files(self):
        long = os.path.join(self.useFixture(fixtures.TempDir()).path, 'x' * 90)
        os.mkdir(long)
        self.useFixture(fixtures.MonkeyPatch('tempfile.tempdir', long))
        self.assert_ok('forwarding', 'forwards')

    def test_peer_without_the_command(self):
        line, = self.lines('peer')
        self.assertIsNone(line.ok)
        self.assertIn('by hand', line.text)

    def test_peer_with_the_command(self):
        command = os.path.join(self.pmem.bin, 'nova-pmem-copy')
        with open(command, 'w') as file:
            file.write('#!/bin/sh\necho \'{"protocol": 2, "checks": [{'
                       '"name": "daxio", "ok": false, "text": "gone"}]}\'\n')
        os.chmod(command, 0o755)
        line, = self.lines('peer')
        self.assertIs(False, line.ok)
        self.assertIn('daxio: gone', line.text)

    def test_join_command_that_is_not_there(self):
        self.flags(pmem_copy_join_command='nonsuch', group='libvirt')
        self.assertIn('not found', self.wrong('forwarding'))

    def test_join_command(self):
        self.flags(pmem_copy_join_command='nova-pmem-join', group='libvirt')
        self.assert_ok('forwarding', 'nova-pmem-join')


class RefusedTestCase(PeerTestCase):

    CONFIG = 'PubkeyAuthentication no\n'

    def test_login(self):
        self.assertIn('authorized_keys', self.wrong('ssh'))


class ForcedTestCase(PeerTestCase):
    """What a login runs is none of ours, and sshd forwards all the same."""

    CONFIG = 'ForceCommand echo only copies\n'

    def test_login(self):
        self.assertEqual([True, True, None, None],
                         [line.ok for line in self.lines('ssh')])

    def test_way(self):
        self.assertIs(True, self.lines('forwarding')[0].ok)


class ForbiddenTestCase(PeerTestCase):

    CONFIG = 'DisableForwarding yes\n'

    def test_way(self):
        self.assertIn('makes no socket', self.wrong('forwarding'))


class RemoteOnlyTestCase(PeerTestCase):
    """sshd makes sockets, and forwards to none."""

    CONFIG = 'AllowStreamLocalForwarding remote\n'

    def test_way(self):
        self.assertIn('forwards to no socket', self.wrong('forwarding'))


class LocalOnlyTestCase(PeerTestCase):
    """sshd forwards to sockets, and makes none."""

    CONFIG = 'AllowStreamLocalForwarding local\n'

    def test_nobody_known_listens(self):
        self.assertIn('not known', self.wrong('forwarding'))

    def test_somebody_listens(self):
        path = os.path.join(self.pmem.root, 'listener')
        listener = check_peer.socket.socket(check_peer.socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(path)
        listener.listen()
        self.useFixture(fixtures.MockPatchObject(
            check_peer, 'LISTENERS', ('/nonexistent', path)))
        self.assert_ok('forwarding', 'forwards')


class CloggedTestCase(PeerTestCase):

    CONFIG = 'ForceCommand date +%s; exec sleep 1000\n'

    def test_peer_that_reads_nothing(self):
        self.useFixture(fixtures.MockPatchObject(check_peer, 'LONGEST', 1))
        self.useFixture(fixtures.MockPatchObject(check_peer, 'TIMEOUT', 5))
        self.assertEqual([True, True, True, None],
                         [line.ok for line in self.lines('ssh')])
