# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import add_argument
from novapatch.edit import add_import

EDITS = [
    add_import('from nova.conf import pmem_copy'),
    add_argument('ALL_OPTS', 'itertools.chain(...)', 'pmem_copy.OPTS'),
]
