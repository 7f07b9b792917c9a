# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import add_argument
from novapatch.edit import add_decorator
from novapatch.edit import add_import
from novapatch.edit import append
from novapatch.edit import replace

ACTION = 'MigrateServerController._migrate'

EDITS = [
    add_import('from nova.api.openstack.compute.schemas import pmem_copy'),
    replace(ACTION, 'validation.schema(schema.migrate, $MIN)', '''
        validation.schema(schema.migrate, $MIN, "{{microversion_before}}")
        '''),
    add_decorator(
        ACTION, '@validation.schema(pmem_copy.migrate_not_validated, '
        '"2.0", "2.55")',
        above='validation.schema(schema.migrate, ...)'),
    add_decorator(
        ACTION, '@validation.schema(pmem_copy.extended(schema.migrate), '
        '"{{microversion}}")',
        below='validation.schema(schema.migrate, ...)'),
    add_argument(
        ACTION, 'self.compute_api.resize(...)',
        '**pmem_copy.resize_arguments(\n    req, instance, body, "migrate")'),
    append(ACTION, 'exception.PMEMCopyAcrossCells',
           within='(exception.ComputeHostNotFound, ...)'),
    append(ACTION, 'exception.PMEMCopyOldCompute',
           within='(exception.ForbiddenSharesNotSupported, ...)'),
]
