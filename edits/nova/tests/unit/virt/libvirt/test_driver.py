# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import insert_after

# The hosts of these tests have the resources of which they speak.
EDITS = [
    insert_after('LibvirtPMEMNamespaceTests.setUp', 'self.useFixture(...)', '''
        self.useFixture(fixtures.MockPatch(
            'nova.virt.libvirt.host.Host.get_node_uuid',
            return_value=uuids.rp_uuid))
        '''),
    insert_after('LibvirtConnTestCase.test_get_guest_config_with_vpmems',
                 'drvr._vpmems_by_name = $X', '''
        drvr._host._node_uuid = uuids.rp
        '''),
]
