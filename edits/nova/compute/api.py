# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import add_import
from novapatch.edit import add_parameter
from novapatch.edit import append_docstring
from novapatch.edit import insert_after
from novapatch.edit import insert_before
from novapatch.edit import MODULE
from novapatch.edit import replace

EDITS = [
    add_import('from nova.compute import pmem_copy'),
    insert_before(MODULE, 'CELLS = $X', '''
        MIN_COMPUTE_COPY_PMEM_DEVICES = {{service_version}}

        '''),
    add_parameter('API.resize', 'copy_pmem_devices=False'),
    append_docstring('API.resize', '''
        If copy_pmem_devices is true, the contents of the server's vPMEM
        devices move with it. The destination is then held to the cell of the
        server.
        '''),
    insert_after('API.resize', 'allow_cross_cell_resize = $X', '''
        if copy_pmem_devices:
            pmem_copy.check_request(context, instance, host_name, min_comp_ver,
                                    MIN_COMPUTE_COPY_PMEM_DEVICES)
            allow_cross_cell_resize = False
        '''),
    insert_before('API.resize', 'same_flavor = $X', '''
        if copy_pmem_devices:
            copy_pmem_devices = pmem_copy.check_flavors(
                current_flavor, new_flavor)

        '''),
    insert_after('API.resize', 'request_spec.ignore_hosts = $X', '''
        if copy_pmem_devices:
            request_spec.copy_pmem_devices = True
            pmem_copy.note_wish(context, instance)
        '''),
    replace('API._delete',
            'self._confirm_resize_on_deleting(context, instance)', '''
        pmem_copy.confirm_on_deleting(
            self, context, instance, original_task_state)
        '''),
]
