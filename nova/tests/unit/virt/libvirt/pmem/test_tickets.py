# SPDX-License-Identifier: Apache-2.0

import dataclasses
import os
import threading
from unittest import mock

import ddt
import fixtures
from oslo_serialization import jsonutils
from oslo_utils.fixture import uuidsentinel as uuids

from nova import exception
from nova import test
from nova.virt.libvirt.pmem import tickets


def ticket(**changes):
    fields = {
        'host': 'host2', 'migration_uuid': uuids.migration,
        'instance_uuid': uuids.instance,
        'targets': (tickets.Target('ns_1', 4096, 2048, 0, 0),
                    tickets.Target('ns_2', 4096, 4096, 0, 6)),
    }
    return tickets.Ticket(**dict(fields, **changes))


@ddt.ddt
class TicketTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        self.flags(state_path=self.useFixture(fixtures.TempDir()).path)

    def _path(self, name=None):
        return os.path.join(tickets.directory(),
                            (name or uuids.migration) + '.receive')

    def _damage(self, text):
        tickets.write(ticket())
        with open(self._path(), 'w') as stored:
            stored.write(text)

    def _changed(self, **changes):
        fields = jsonutils.loads(ticket().to_json())
        for name, value in changes.items():
            if name in fields:
                fields[name] = value
            else:
                fields['targets'][0][name] = value
        return jsonutils.dumps(fields)

    def test_no_ticket(self):
        self.assertRaises(exception.PMEMTicketNotFound, tickets.read,
                          uuids.migration)
        self.assertEqual([], list(tickets.open_tickets('host2')))

    @ddt.data('', '{', '[]', '7', 'null', '{}', '{"targets": 1}', '[' * 9999,
              '{"targets": [], "host": "h"}', '\x00')
    def test_damaged_ticket_is_refused(self, text):
        self._damage(text)
        error = self.assertRaises(exception.PMEMTicketInvalid,
                                  tickets.read, uuids.migration)
        self.assertIn(self._path(), error.format_message())

    @ddt.data({'version': 2}, {'kind': 'x'}, {'kind': None}, {'host': ''},
              {'host': 1}, {'targets': None},
              {'migration_uuid': '../x'}, {'instance_uuid': None},
              {'name': ''}, {'name': None}, {'size': -1}, {'size': '4096'},
              {'size': 1}, {'source_size': 0}, {'source_size': 4097},
              {'uid': -1}, {'gid': True}, {'unknown': 1})
    def test_wrong_value_is_refused(self, changes):
        self._damage(self._changed(**changes))
        self.assertRaises(exception.PMEMTicketInvalid, tickets.read,
                          uuids.migration)

    def test_ticket_of_another_migration_is_refused(self):
        self._damage(ticket(migration_uuid=uuids.other).to_json())
        error = self.assertRaises(exception.PMEMTicketInvalid,
                                  tickets.read, uuids.migration)
        self.assertIn(uuids.other, error.format_message())

    @ddt.data('../../etc/passwd', '', 'x', uuids.migration + '\n')
    def test_only_a_uuid_names_a_ticket(self, name):
        self.assertRaises(exception.PMEMTicketInvalid, tickets.read, name)

    def test_write_read_close(self):
        tickets.write(ticket())
        self.assertEqual(ticket(), tickets.read(uuids.migration))
        self.assertEqual([ticket()], list(tickets.open_tickets()))
        tickets.close(ticket())
        tickets.close(ticket())
        self.assertRaises(exception.PMEMTicketNotFound, tickets.read,
                          uuids.migration)

    def test_kinds_are_apart(self):
        for kind in tickets.KINDS:
            tickets.write(ticket(kind=kind))
        tickets.close(ticket(kind=tickets.HOLD))
        self.assertEqual(
            set(tickets.KINDS) - {tickets.HOLD},
            {each.kind for each in tickets.open_tickets('host2')})
        self.assertRaises(exception.PMEMTicketNotFound, tickets.read,
                          uuids.migration, tickets.HOLD)

    def test_ticket_of_another_kind_is_refused(self):
        self._damage(ticket(kind=tickets.HOLD).to_json())
        self.assertRaises(exception.PMEMTicketInvalid, tickets.read,
                          uuids.migration)

    def test_ticket_that_can_not_be_stored_is_not_there(self):
        with mock.patch('os.rename', side_effect=OSError('full')):
            self.assertRaises(OSError, tickets.write, ticket())
        self.assertEqual([], os.listdir(tickets.directory()))

    def test_contents_are_durable_before_the_name_is(self):
        calls = mock.Mock()
        with mock.patch('os.fsync', calls.fsync), mock.patch(
                'os.rename', calls.rename):
            tickets.write(ticket())
        self.assertEqual(['fsync', 'rename', 'fsync'],
                         [call[0] for call in calls.method_calls])

    def test_open_tickets_of_a_host(self):
        tickets.write(ticket())
        tickets.write(ticket(migration_uuid=uuids.other, host='host3'))
        self.assertEqual([ticket()], list(tickets.open_tickets('host2')))
        self.assertEqual(2, len(list(tickets.open_tickets())))

    def test_damaged_ticket_stays(self):
        self._damage('{')
        self.assertEqual([], list(tickets.open_tickets('host2')))
        self.assertEqual([(uuids.migration, 'receive')],
                         tickets.damaged())
        self.assertTrue(os.path.exists(self._path()))

    def test_what_this_process_wrote_is_mended(self):
        tickets.write(ticket())
        for text in ('{', dataclasses.replace(
                ticket(), host='another').to_json()):
            self._damage(text)
            tickets.mend()
            self.assertEqual([ticket()], list(tickets.open_tickets()))
        os.unlink(self._path())
        tickets.mend()
        self.assertEqual([ticket()], list(tickets.open_tickets()))
        self.assertIn(self._path(), self.stdlog.logger.output)
        tickets.close(ticket())
        tickets.mend()
        self.assertEqual([], list(tickets.open_tickets()))

    def test_what_says_something_else_by_now_is_not_closed(self):
        over = dataclasses.replace(ticket(), state=tickets.OVER)
        tickets.write(ticket())
        tickets.write(over)
        tickets.close(ticket())
        self.assertEqual([over], list(tickets.open_tickets()))
        tickets.close(over)
        self.assertEqual([], list(tickets.open_tickets()))

    def test_closed_meanwhile_is_not_mended(self):
        tickets.write(ticket())
        closing = threading.Thread(target=tickets.close, args=(ticket(),))

        def read(*args):
            # Somebody else comes to close it just now.
            if closing.ident is None:
                closing.start()
            raise exception.PMEMTicketNotFound(migration_uuid='x')

        with mock.patch.object(tickets, 'read', read):
            tickets.mend()
        closing.join()
        self.assertEqual([], os.listdir(tickets.directory()))

    def test_other_files_are_passed_over(self):
        tickets.write(ticket())
        for name in ('README', '.tmpx', 'x.receive',
                     uuids.other, uuids.other + '.json'):
            with open(os.path.join(tickets.directory(), name), 'w'):
                pass
        self.assertEqual([ticket()], list(tickets.open_tickets()))
