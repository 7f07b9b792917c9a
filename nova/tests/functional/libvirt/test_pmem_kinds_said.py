# SPDX-License-Identifier: Apache-2.0

"""What tenants read is theirs, and what the log says is so."""

from nova import exception
from nova import policies
from nova.tests.functional.libvirt import pmem_kinds
from nova.tests.functional.libvirt import pmem_world

SOURCE, DESTINATION = pmem_kinds.HOSTS
OLD, NEW, SIZE = pmem_kinds.OLD, pmem_kinds.NEW, pmem_kinds.SIZE
MOVED, DRIVER = pmem_kinds.MOVED, pmem_kinds.DRIVER

FORGED = '2026-01-01 00:00:00.000 1 CRITICAL nova.compute.manager'

#: What a peer, or its shell, may print.
PEER_TEXT = ''.join((
    'no room\n%s [-] All is lost\n' % FORGED,
    '\x1b[31mred\x1b[0m \x1b]0;title\x07\n',
    'all is well\rno, it is not\n',
    'before \x00 after\n',
    '\U0001f4a5 it broke\n',
    '%s %(name)s {0} {name}\n',
    'x' * 20000 + '\n'))


class PmemToldTests(pmem_kinds.KindTestBase):
    """What the API tells of a move that came to nothing."""

    def setUp(self):
        super().setUp()
        self.take_server()

    def _told(self, server):
        """Return all texts that the owner of a server can read."""
        texts = []
        fault = (self.show(server) or {}).get('fault')
        if fault:
            texts.append(fault['message'])
        for action in self.api.get_instance_actions(server['id']):
            found = self.api.api_get('/servers/%s/os-instance-actions/%s' % (
                server['id'], action['request_id'])).body['instanceAction']
            texts += [event.get('details') for event in found['events']]
            texts.append(found['message'])
        return [text for text in texts if text]

    def _fail_to_copy(self, message='bad block\n'):
        fault = self.pmem.inject(
            'exit', NEW, at=SIZE // 2, repeat=True, status=1, message=message)
        self.ask_to_migrate()
        self.wait_until_quiet()
        self.assertTrue(fault.fired)
        fault.cancel()

    def test_reason_stands_in_what_is_kept_of_an_event(self):
        self._fail_to_copy('daxio: the reason itself\n')
        self.assertTrue(
            [text for text in self._told(self.server)
             if 'not copied' in text or 'the reason itself' in text],
            self._told(self.server))

    def test_no_text_of_a_peer_is_passed_on_as_it_is(self):
        self._fail_to_copy(PEER_TEXT)
        for text in self._told(self.server):
            odd = [char for char in text if not char.isprintable()]
            self.assertEqual([], odd, text)
            self.assertNotIn(FORGED, text)
        for line in self.log().splitlines():
            self.assertFalse(line.lstrip().startswith(FORGED), line)
            self.assertNotIn('\x1b', line)
            self.assertNotIn('\x00', line)

    def test_no_path_of_a_device(self):
        self._fail_to_copy()
        for text in self._told(self.server):
            self.assertNotIn(self.pmem.root, text)
            self.assertNotIn('/dev/', text)

    def test_nothing_of_a_device_that_can_not_be_wiped(self):
        self.pmem.inject('exit', OLD, side='zero', status=1, repeat=True,
                         message='daxio: the reason itself\n')
        self.api.delete_server(self.server['id'])
        self.wait_until_quiet()
        self.assertEqual('ERROR', self.status(self.server))
        for text in self._told(self.server):
            self.assertNotIn('/dev/', text)
            self.assertNotIn(self.pmem.root, text)
            self.assertNotIn('daxio', text)
        self.assertIn('the reason itself', self.log())

    def test_no_move_of_another_tenant(self):
        # Its namespace on the destination stays dirty.
        self.pmem.inject('exit', NEW, side='zero', status=1, repeat=True)
        self._fail_to_copy()
        uuid = self.migrations(self.server)[-1]['uuid']
        # The scheduler has not heard of it yet.
        other = self.ask_to_boot(MOVED, host=DESTINATION)
        self.wait_until_quiet()
        self.assertEqual('ERROR', self.status(other))
        for text in self._told(other):
            self.assertNotIn(uuid, text)
            self.assertNotIn(self.server['id'], text)

    def test_operators_have_all_of_it_in_the_log(self):
        self.mark_log()
        self._fail_to_copy('daxio: the reason itself\n')
        for part in (self.server['id'], DESTINATION, 'the reason itself',
                     self.migrations(self.server)[-1]['uuid'],
                     self.pmem.known(NEW)):
            self.assertIn(part, self.log())


class PmemPolicyTests(pmem_kinds.KindTestBase):
    """A copy has a rule of its own beside resize and migrate."""

    def setUp(self):
        super().setUp()
        self.take_server()
        self.rules = [rule.name for rule in policies.list_rules()
                      if 'pmem' in rule.name]

    def test_there_are_rules(self):
        self.assertNotEqual([], self.rules)

    def test_who_may_not_copy_may_move(self):
        self.assertNotEqual([], self.rules)
        self.policy.set_rules(dict.fromkeys(self.rules, '!'), overwrite=False)
        self.refused(403, self.server, 'migrate', {'copy_pmem_devices': True})
        self.refused(403, self.server, 'resize', {
            'flavorRef': self.create_pmem_flavor(MOVED, vcpu=2),
            'copy_pmem_devices': True})
        self.ask_to_migrate(copy=False)
        self.wait_until_quiet()
        self.assertEqual('VERIFY_RESIZE', self.status(self.server))


class PmemLogTests(pmem_kinds.KindTestBase):
    """What happened, where the data is, who acts next, what not to do."""

    def setUp(self):
        super().setUp()
        self.take_server()
        self.mark_log()

    def _said(self, *parts):
        """Return the log's lines that have all of these."""
        return [line for line in self.log().splitlines()
                if all(part in line for part in parts)]

    def test_confirm_that_fails(self):
        self.move()
        self.mark_log()
        self.fail_next(DRIVER + 'confirm_migration')
        self.ask_to_confirm()
        self.wait_until_quiet()
        # It is the source that is being wiped.
        self.assertEqual([], self._said('intact', SOURCE))
        self.assertNotEqual([], self._said(
            'onfirm', self.migrations(self.server)[-1]['uuid'], DESTINATION))

    def test_revert_that_fails(self):
        self.move()
        self.mark_log()
        self.fail_next(DRIVER + 'finish_revert_migration')
        self.ask_to_revert()
        self.wait_until_quiet()
        self.assertNotEqual([], self._said(
            self.migrations(self.server)[-1]['uuid'], SOURCE, 'intact'))

    def test_guest_that_does_not_come_back(self):
        self.pmem.inject('exit', NEW, at=SIZE // 2, repeat=True)
        self.fail_next(DRIVER + 'finish_revert_migration')
        self.ask_to_migrate()
        self.wait_until_quiet()
        self.assertNotEqual([], self._said(
            self.migrations(self.server)[-1]['uuid'], DESTINATION, 'intact',
            'reset'))

    def test_server_that_was_handed_over(self):
        """Its source fails right after it; it says who has the server now."""
        self.hook('nova.compute.rpcapi.ComputeAPI.finish_resize', 'after',
                  'handed over')
        self.at('handed over', self._fail)
        self.ask_to_migrate()
        self.wait_until_quiet()
        self.assertEqual([], self._said('is for %s to start' % DESTINATION))
        pmem_world.wait_until(
            lambda: self.status(self.server) == 'VERIFY_RESIZE', 'the move')

    @staticmethod
    def _fail():
        raise exception.NovaException('fails as planned')
