# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import add_import
from novapatch.edit import replace

EDITS = [
    add_import('from nova.privsep import pmem'),
    replace('cleanup_vpmem', '''
        daxio_cmd = ['daxio', '-z', '-o', $PATH]
        processutils.execute(*daxio_cmd)
        ''', '''
        pmem.zero(devpath)
        '''),
]
