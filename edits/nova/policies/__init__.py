# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import add_argument
from novapatch.edit import add_import

EDITS = [
    add_import('from nova.policies import pmem_copy'),
    add_argument('list_rules', 'itertools.chain(...)',
                 'pmem_copy.list_rules()'),
]
