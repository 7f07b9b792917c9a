# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import add_argument
from novapatch.edit import add_decorator
from novapatch.edit import add_import
from novapatch.edit import append
from novapatch.edit import replace

ACTION = 'ServersController._resize'

EDITS = [
    add_import('from nova.api.openstack.compute.schemas import pmem_copy'),
    replace(ACTION, 'validation.schema(schema.resize)', '''
        validation.schema(schema.resize, '2.0', '{{microversion_before}}')
        '''),
    add_decorator(
        ACTION, "@validation.schema(pmem_copy.extended(schema.resize), "
        "'{{microversion}}')",
        below='validation.schema(schema.resize, ...)'),
    add_argument(
        ACTION, 'self.compute_api.resize(...)',
        "**pmem_copy.resize_arguments(\n    req, instance, body, 'resize')"),
    append(ACTION, 'exception.PMEMCopyFewerDevices',
           within='(exception.AutoDiskConfigDisabledByImage, ...)'),
    append(ACTION, 'exception.PMEMCopyOldCompute',
           within='(exception.ForbiddenSharesNotSupported, ...)'),
]
