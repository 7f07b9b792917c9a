# SPDX-License-Identifier: Apache-2.0

"""The wish to copy vPMEM data, on its way from the API to the source."""

from unittest import mock

from oslo_serialization import jsonutils
from oslo_utils.fixture import uuidsentinel as uuids

from nova import context
from nova import objects
from nova import test


class RequestSpecWishTestCase(test.NoDBTestCase):

    def test_default(self):
        self.assertFalse(objects.RequestSpec().copy_pmem_devices)

    def test_older_versions_drop_it(self):
        spec = objects.RequestSpec(copy_pmem_devices=True)
        fields = spec.obj_to_primitive('1.16')['nova_object.data']
        self.assertTrue(fields['copy_pmem_devices'])
        fields = spec.obj_to_primitive('1.15')['nova_object.data']
        self.assertNotIn('copy_pmem_devices', fields)

    def test_it_is_not_persisted_and_not_lost_by_saving(self):
        spec = objects.RequestSpec(
            context.get_admin_context(), id=1, instance_uuid=uuids.instance,
            copy_pmem_devices=True)
        with mock.patch.object(objects.RequestSpec, '_save_in_db') as save:
            save.side_effect = lambda context, uuid, updates: dict(
                updates, id=1, instance_uuid=uuids.instance)
            spec.save()
        stored = jsonutils.loads(save.call_args.args[2]['spec'])
        self.assertNotIn('copy_pmem_devices', stored['nova_object.data'])
        self.assertTrue(spec.copy_pmem_devices)
        # So a Nova without it can read it, which may come after this one.
        self.assertEqual('1.15', stored['nova_object.version'])
        again = objects.RequestSpec.obj_from_primitive(stored)
        self.assertFalse(again.copy_pmem_devices)


class MigrationContextWishTestCase(test.NoDBTestCase):

    def test_older_versions_drop_it(self):
        move = objects.MigrationContext(
            instance_uuid=uuids.instance, migration_id=1,
            copy_pmem_devices=True, pmem_copy_socket='/there',
            pmem_copy_off_since=None)
        new = {'copy_pmem_devices': True, 'pmem_copy_socket': '/there',
               'pmem_copy_off_since': None}
        fields = move.obj_to_primitive('1.3')['nova_object.data']
        self.assertEqual(new, {name: fields[name] for name in new})
        fields = move.obj_to_primitive('1.2')['nova_object.data']
        self.assertEqual(set(), set(new).intersection(fields))

    def test_record_of_an_older_service_has_none(self):
        move = objects.MigrationContext(
            instance_uuid=uuids.instance, migration_id=1)
        stored = jsonutils.dumps(move.obj_to_primitive('1.2'))
        self.assertNotIn('copy_pmem_devices',
                         objects.MigrationContext.obj_from_db_obj(stored))


class EventTestCase(test.NoDBTestCase):
    """What an event of a server tells when it ends."""

    def _end(self, **values):
        return objects.InstanceActionEvent.pack_action_event_finish(
            mock.Mock(request_id='x'), uuids.instance, 'copy', **values)

    def test_success(self):
        self.assertNotIn('details', self._end())
        values = self._end(exc_val='it was %s' % ('long' * 99))
        self.assertEqual('Success', values['result'])
        self.assertEqual('it was long', values['details'][:11])
        self.assertEqual(255, len(values['details']))

    def test_failure(self):
        values = self._end(exc_val='no luck', exc_tb='the traceback')
        self.assertEqual(('Error', 'no luck', 'the traceback'), (
            values['result'], values['details'], values['traceback']))
