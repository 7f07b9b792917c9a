# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import toml_add_item

EDITS = [
    toml_add_item('project.scripts', 'nova-pmem-copy',
                  'nova.cmd.pmem_copy:main'),
    toml_add_item('project.scripts', 'nova-pmem-join',
                  'nova.cmd.pmem_join:main'),
]
