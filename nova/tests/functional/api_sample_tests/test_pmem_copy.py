# SPDX-License-Identifier: Apache-2.0

from unittest import mock

from nova.tests.functional.api_sample_tests import test_servers


class ResizeCopyPMEMSampleTest(test_servers.ServersSampleBase):
    microversion = '2.105'
    scenarios = [('v2_105', {'api_major_version': 'v2.1'})]

    def test_resize(self):
        self.flags(allow_resize_to_same_host=True)
        server_id = self._post_server()
        response = self._do_post(
            'servers/%s/action' % server_id, 'server-action-resize',
            {'id': '2'})
        self.assertEqual(202, response.status_code)
        self.assertEqual('', response.text)


class MigrateCopyPMEMSampleTest(test_servers.ServersSampleBase):
    # By default only an administrator may migrate a server.
    ADMIN_API = True
    sample_dir = 'os-migrate-server'
    microversion = '2.105'
    scenarios = [('v2_105', {'api_major_version': 'v2.1'})]

    @mock.patch('nova.conductor.manager.ComputeTaskManager._cold_migrate')
    def test_migrate(self, cold_migrate):
        server_id = self._post_server()
        self.start_service('compute', host='host1')
        response = self._do_post(
            'servers/%s/action' % server_id, 'migrate-server',
            {'hostname': 'host1'})
        self.assertEqual(202, response.status_code)
        self.assertEqual('', response.text)
        request_spec = cold_migrate.call_args.args[5]
        # This server has no vPMEM, and moves like any other.
        self.assertFalse(request_spec.copy_pmem_devices)
        self.assertEqual('host1', request_spec.requested_destination.host)
