#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

from unittest import mock

import ddt
import fixtures
from oslo_utils.fixture import uuidsentinel as uuids

from nova.compute import pmem_copy
from nova.compute import power_state
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
        pmem_copy.check_flavors(self._flavor(current), self._flavor(new))


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


@ddt.ddt
class GuestBackOnFailureTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        self.manager = mock.Mock()
        self.manager.driver.get_info.return_value.state = power_state.SHUTDOWN
        self.instance = objects.Instance(
            uuid=uuids.instance, system_metadata={'old_vm_state': 'active'},
            migration_context=objects.MigrationContext(
                copy_pmem_devices=True))
        self.current = objects.Instance(task_state='resize_migrating')
        self.find = self.useFixture(fixtures.MockPatch(
            'nova.objects.Instance.get_by_uuid',
            return_value=self.current)).mock
        self.revert = self.manager.driver.finish_revert_migration

    def _run(self, error):
        with pmem_copy.guest_back_on_failure(
                self.manager, mock.sentinel.context, self.instance,
                mock.sentinel.migration, mock.sentinel.network_info,
                mock.sentinel.block_device_info):
            if error:
                raise error

    def test_success(self):
        self._run(None)
        self.revert.assert_not_called()

    def test_refusal_passes(self):
        self.assertRaises(
            exception.InstanceFaultRollback, self._run,
            exception.InstanceFaultRollback(ValueError()))
        self.revert.assert_not_called()

    def test_other_moves_fail_as_they_always_did(self):
        self.instance.migration_context.copy_pmem_devices = False
        self.assertRaises(ValueError, self._run, ValueError())
        self.revert.assert_not_called()

    @ddt.data(('active', True), ('stopped', False))
    @ddt.unpack
    def test_guest_comes_back_as_it_was(self, vm_state, power_on):
        self.instance.system_metadata['old_vm_state'] = vm_state
        failure = ValueError('broken')
        error = self.assertRaises(
            exception.InstanceFaultRollback, self._run, failure)
        self.assertIs(failure, error.inner_exception)
        self.revert.assert_called_once_with(
            mock.sentinel.context, self.instance, mock.sentinel.network_info,
            mock.sentinel.migration, mock.sentinel.block_device_info,
            power_on,
            share_info=self.manager.share_manager.get_share_info.return_value)

    def test_server_that_is_being_deleted_does_not_come_back(self):
        self.current.task_state = 'deleting'
        self.assertRaises(ValueError, self._run, ValueError())
        self.find.side_effect = exception.InstanceNotFound(instance_id='x')
        self.assertRaises(ValueError, self._run, ValueError())
        self.revert.assert_not_called()

    def test_guest_that_could_not_be_stopped_goes_on(self):
        self.manager.driver.get_info.return_value.state = power_state.RUNNING
        self.assertRaises(
            exception.InstanceFaultRollback, self._run, ValueError())
        self.revert.assert_not_called()

    def test_guest_that_does_not_come_back_is_in_error_for_the_first_cause(
            self):
        self.revert.side_effect = OSError('second')
        error = self.assertRaises(ValueError, self._run, ValueError('first'))
        self.assertEqual('first', str(error))
        self.assertIn('second', self.stdlog.logger.output)
        self.assertIn('hard reboot', self.stdlog.logger.output)
