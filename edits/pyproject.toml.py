# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import toml_add_item

EDITS = [
    toml_add_item('project.scripts', 'nova-pmem-receive',
                  'nova.virt.pmem_transfer.receiver:main'),
]
