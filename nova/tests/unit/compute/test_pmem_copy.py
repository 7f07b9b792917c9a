# SPDX-License-Identifier: Apache-2.0

from unittest import mock

import ddt
import fixtures
from oslo_utils.fixture import uuidsentinel as uuids

from nova.compute import pmem_copy
from nova import context
from nova import exception
from nova import objects
from nova import test


class CheckTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        self.context = context.RequestContext('user', 'project')
        self.instance = objects.Instance(uuid=uuids.instance)

    def _check(self, host=None, oldest=75):
        pmem_copy.check_request(self.context, self.instance, host, oldest, 75)

    def _cells(self, host, server):
        cells = {cell: objects.CellMapping(uuid=cell)
                 for cell in (host, server)}
        return (
            mock.patch('nova.objects.HostMapping.get_by_host',
                       return_value=objects.HostMapping(
                           cell_mapping=cells[host])),
            mock.patch('nova.objects.InstanceMapping.get_by_instance_uuid',
                       return_value=objects.InstanceMapping(
                           cell_mapping=cells[server])))

    def test_old_compute(self):
        error = self.assertRaises(
            exception.PMEMCopyOldCompute, self._check, oldest=74)
        self.assertIn('75', error.format_message())
        self.assertIn('74', error.format_message())

    def test_unknown_host(self):
        with mock.patch('nova.objects.HostMapping.get_by_host',
                        side_effect=exception.HostMappingNotFound(name='h')):
            self.assertRaises(exception.ComputeHostNotFound, self._check, 'h')

    def test_host_in_another_cell(self):
        host, server = self._cells(uuids.cell1, uuids.cell2)
        with host, server:
            self.assertRaises(
                exception.PMEMCopyAcrossCells, self._check, 'h')

    def test_host_in_the_same_cell_and_no_host(self):
        host, server = self._cells(uuids.cell1, uuids.cell1)
        with host, server:
            self._check('h')
        self._check(None, oldest=76)


@ddt.ddt
class CheckFlavorsTestCase(test.NoDBTestCase):

    @staticmethod
    def _flavor(pmem):
        return objects.Flavor(name='f', extra_specs=(
            {} if pmem is None else {'hw:pmem': pmem}))

    @ddt.data(('A', None), ('A,A', 'A'), ('A,B', 'C'))
    @ddt.unpack
    def test_fewer_devices(self, current, new):
        self.assertRaises(
            exception.PMEMCopyFewerDevices, pmem_copy.check_flavors,
            self._flavor(current), self._flavor(new))

    @ddt.data((None, None), (None, 'A'), ('A', 'A'), ('A', 'B'), ('A', 'B,A'))
    @ddt.unpack
    def test_enough_devices(self, current, new):
        self.assertEqual(bool(current), pmem_copy.check_flavors(
            self._flavor(current), self._flavor(new)))


class IsWantedTestCase(test.NoDBTestCase):

    def test_no_move_old_record_and_both_wishes(self):
        instance = objects.Instance(migration_context=None)
        self.assertFalse(pmem_copy.is_wanted(instance))
        # As a nova-compute of the release before has stored it.
        instance.migration_context = objects.MigrationContext()
        self.assertFalse(pmem_copy.is_wanted(instance))
        for wish in (True, False):
            instance.migration_context.copy_pmem_devices = wish
            self.assertIs(wish, pmem_copy.is_wanted(instance))


class HasLeftTestCase(test.NoDBTestCase):

    @staticmethod
    def _on(provider):
        # Both hosts call theirs the same.
        return objects.ResourceList(objects=[objects.Resource(
            provider_uuid=provider, resource_class='CUSTOM_X',
            identifier='ns_0')])

    def test_both_halves_of_a_revert(self):
        instance = objects.Instance(
            resources=self._on(uuids.destination),
            migration_context=objects.MigrationContext(
                old_resources=self._on(uuids.source)))
        self.assertFalse(pmem_copy.has_left(instance))
        instance.resources = self._on(uuids.source)
        self.assertTrue(pmem_copy.has_left(instance))

    def test_server_that_has_none(self):
        self.assertFalse(pmem_copy.has_left(objects.Instance(
            resources=None, migration_context=objects.MigrationContext(
                old_resources=None))))

    def test_no_move(self):
        self.assertFalse(pmem_copy.has_left(objects.Instance(
            resources=self._on(uuids.source), migration_context=None)))


class DeletableAgainTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        self.instance = objects.Instance(
            context.get_admin_context(), uuid=uuids.instance,
            flavor=objects.Flavor(extra_specs={'hw:pmem': 'A'}),
            task_state='deleting', migration_context=objects.MigrationContext(
                copy_pmem_devices=True))
        self.current = objects.Instance(task_state='deleting')
        self.find = self.useFixture(fixtures.MockPatch(
            'nova.objects.Instance.get_by_uuid',
            return_value=self.current)).mock
        self.save = self.useFixture(fixtures.MockPatch(
            'nova.objects.Instance.save')).mock

    def _delete(self, error=None):
        def confirm(_context, instance):
            if error is not None:
                raise error
            instance.migration_context = None

        api = mock.Mock()
        api._confirm_resize_on_deleting.side_effect = confirm
        pmem_copy.confirm_on_deleting(
            api, mock.sentinel.context, self.instance, None)
        api._confirm_resize_on_deleting.assert_called_once_with(
            mock.sentinel.context, self.instance)

    def _fail(self):
        self._delete(OSError('the source is away'))

    def test_failure(self):
        self.assertRaises(OSError, self._fail)
        self.assertIsNone(self.current.task_state)
        self.save.assert_called_once_with(
            expected_task_state=['deleting', 'soft-deleting'])

    def test_source_that_was_only_late(self):
        self.save.side_effect = exception.UnexpectedTaskStateError(
            instance_uuid=uuids.instance, expected={}, actual={})
        self.assertRaises(OSError, self._fail)

    def test_server_that_is_gone_is_not_stored_again(self):
        self.find.side_effect = exception.InstanceNotFound(
            instance_id=uuids.instance)
        self.assertRaises(OSError, self._fail)
        self.save.assert_not_called()

    def test_success(self):
        # Confirming it has set this to None in the database.
        self.instance.obj_reset_changes()
        self._delete()
        self.save.assert_called_once_with()
        self.assertIn('task_state', self.instance.obj_what_changed())
        self.assertEqual('deleting', self.instance.task_state)

    def test_server_without_vpmem_is_not_looked_up(self):
        self.instance = objects.Instance(
            context.get_admin_context(), uuid=uuids.instance,
            flavor=objects.Flavor(extra_specs={}))
        with mock.patch('nova.objects.MigrationContext.get_by_instance_uuid',
                        side_effect=AssertionError):
            self._delete()
            self.assertRaises(OSError, self._fail)
        self.save.assert_not_called()

    def test_other_moves(self):
        self.instance.migration_context.copy_pmem_devices = False
        self.assertRaises(OSError, self._fail)
        self._delete()
        self.save.assert_not_called()
