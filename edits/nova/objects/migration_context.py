# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import append
from novapatch.edit import bump
from novapatch.edit import insert_before

EDITS = [
    insert_before('MigrationContext', 'VERSION = $X', '''
        # Version 1.3: Add copy_pmem_devices, pmem_copy_socket,
        # pmem_copy_off_since
        '''),
    bump('MigrationContext.VERSION'),
    append('MigrationContext.fields',
           "'copy_pmem_devices': fields.BooleanField(default=False)"),
    append('MigrationContext.fields',
           "'pmem_copy_socket': fields.StringField(nullable=True)"),
    append('MigrationContext.fields',
           "'pmem_copy_off_since': fields.DateTimeField(nullable=True)"),
    insert_before('MigrationContext.obj_make_compatible',
                  'if target_version < (1, 2):', '''
        if target_version < (1, 3):
            primitive.pop('copy_pmem_devices', None)
            primitive.pop('pmem_copy_socket', None)
            primitive.pop('pmem_copy_off_since', None)
        '''),
]
