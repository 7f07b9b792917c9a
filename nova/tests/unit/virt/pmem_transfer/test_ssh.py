# SPDX-License-Identifier: Apache-2.0

"""Ways to another host, and what keeps a copy from going there."""

import os
import signal

from nova.tests.unit.virt.pmem_transfer import base

MIB = base.MIB
JOIN = 'nova-pmem-join'


class SshTestCase(base.CopyTestCase):

    def setUp(self):
        super().setUp()
        self.add_pair(2 * MIB)
        self.receiver = self.receive()

    def refused(self, *words, retries=0, **changes):
        result = self.fail_to(**changes)
        for word in words:
            self.assertIn(word, result.last['message'])
        self.assertEqual(retries, len(result.told('retry')), result.events)
        self.assertTrue(self.pmem.is_zero('new0'))
        self.end(self.receiver)
        self.assert_nothing_runs()
        return result


class ForwardTestCase(SshTestCase):

    def test_program_that_is_not_there(self):
        self.refused('ssh did not start', 'nonsuch', ssh=('nonsuch',),
                     retries=3)

    def test_no_connection(self):
        self.refused('ssh ended with status 255', 'tried 3 times',
                     address='127.0.0.9', retries=3)

    def test_nobody_listens(self):
        self.refused('tried 3 times', 'nobody listens',
                     socket=self.socket + 'x', retries=3)

    def test_ssh_that_is_never_ready(self):
        self.refused('ssh was not ready after 0.5 seconds',
                     ssh=('sh', '-c', 'exec sleep 1000'), stall_timeout=0.5,
                     attempts=2, retries=2)

    def test_ssh_that_prints_something(self):
        self.refused('ssh', ssh=('sh', '-c', 'echo Welcome; sleep 1000'),
                     attempts=1, retries=1)

    def says(self, script, **changes):
        """Return the message about an ssh that says something and fails."""
        return self.refused(
            ssh=('sh', '-c', script + '; exit 255'), attempts=1, retries=1,
            **changes).last['message']

    def test_reason_after_a_long_banner(self):
        message = self.says('head -c 3072 /dev/zero | tr "\\0" x >&2;'
                            'echo Permission denied >&2')
        self.assertIn('ssh ended with status 255', message)
        self.assertIn('Permission denied', message)
        self.assertLess(len(message), 3000)

    def test_host_that_does_not_stop_to_talk(self):
        message = self.says('head -c %d /dev/zero | tr "\\0" x >&2;'
                            'echo Permission denied >&2' % (300 * MIB))
        self.assertIn('Permission denied', message)
        self.assertLess(len(message), 3000)

    def test_somebody_has_its_stderr_and_stays(self):
        """A command that ssh goes through, say: it is not waited for."""
        path = os.path.join(self.state, 'pid')
        message = self.says('echo no route >&2; setsid sleep 1000 > %s & '
                            'echo $! > %s' % (os.devnull, path))
        with open(path) as file:
            os.kill(int(file.read()), signal.SIGKILL)
        self.assertIn('no route', message)

    def test_many_streams(self):
        """sshd drops some of more than 10 that log in at a time."""
        result = self.succeed(streams=16, extent=2 * MIB // 16)
        self.assertEqual(0, result.last['retries'])

    def test_options_are_kept(self):
        self.succeed(ssh=('ssh', '-o', 'BatchMode=yes', '-o',
                          'LogLevel=ERROR', '-o', 'ServerAliveInterval=5'))


class JoinTestCase(SshTestCase):

    def test_copy(self):
        result = self.succeed(join=JOIN, streams=2)
        self.assertEqual(0, result.last['retries'])
        self.end(self.receiver)
        self.assert_nothing_runs()

    def test_no_such_command(self):
        self.refused('ssh ended with status 127', 'not found',
                     join='nova-pmem-nothing')

    def test_command_that_is_killed(self):
        """As when the other host shuts down: it may be there again soon."""
        self.refused('ssh ended with status 143', 'tried 3 times',
                     join="sh -c 'kill $$'; exit #", retries=3)

    def test_shell_that_prints_something(self):
        self.refused('Welcome to the machine', 'should begin with',
                     join='echo Welcome to the machine; ' + JOIN)

    def test_nobody_listens(self):
        """As where ssh forwards: somebody may listen again soon."""
        self.refused(self.socket + 'x', 'No such file', 'tried 3 times',
                     join=JOIN, socket=self.socket + 'x', retries=3)

    def test_receiver_is_started_again(self):
        hang = self.pmem.inject('hang', 'new0', at=MIB + 5)
        process = self.start(join=JOIN, patience=60)
        hang.wait()
        self.end(self.receiver)
        self.receive()
        self.assertEqual(0, self.result(process).status)
        self.assert_copied()

    def test_path_with_odd_characters(self):
        self.end(self.receiver)
        self.socket += ' $(touch x) \'"'
        self.receive()
        self.succeed(join=JOIN)


class ForbiddenTestCase(SshTestCase):

    SSHD_CONFIG = 'AllowStreamLocalForwarding no\n'

    def test_forwarding(self):
        """sshd does not tell this from a socket that is not there."""
        self.refused('forbids forwarding', 'pmem_copy_join_command',
                     retries=3)

    def test_join(self):
        self.succeed(join=JOIN)


class AllForbiddenTestCase(ForbiddenTestCase):

    SSHD_CONFIG = 'DisableForwarding yes\n'
