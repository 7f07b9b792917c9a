# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import append
from novapatch.edit import bump
from novapatch.edit import insert_before

EDITS = [
    append('REQUEST_SPEC_OPTIONAL_ATTRS', "'copy_pmem_devices'"),
    insert_before('RequestSpec', 'VERSION = $X', '''
        # Version 1.16: Added copy_pmem_devices
        '''),
    bump('RequestSpec.VERSION'),
    append('RequestSpec.fields', '''
        # This field is not persisted: it is the wish of one request.
        'copy_pmem_devices': fields.BooleanField(default=False)
        '''),
    insert_before(
        'RequestSpec.obj_make_compatible',
        "if target_version < (1, 14) and 'requested_networks' in primitive:",
        '''
        if target_version < (1, 16) and 'copy_pmem_devices' in primitive:
            del primitive['copy_pmem_devices']
        '''),
    append('RequestSpec._from_db_object', "'copy_pmem_devices'",
           within="('requested_destination', 'requested_resources', ...)"),
    insert_before(
        'RequestSpec._get_update_primitives', "db_updates = {'spec': $X}", '''
        # Don't persist copy_pmem_devices: the next move asks anew. Without
        # it, what is stored is of the version before, which a Nova without
        # it can read as well.
        if 'copy_pmem_devices' in spec:
            del spec.copy_pmem_devices
        spec.VERSION = '{{request_spec_before}}'

        '''),
]
