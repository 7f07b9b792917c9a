# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import append_string
from novapatch.edit import set_value

EDITS = [
    append_string('REST_API_VERSION_HISTORY', '''
        * {{microversion}} - Add ``copy_pmem_devices`` to the ``resize`` and
                  ``migrate`` server actions, which copies the contents of the
                  server's virtual persistent memory to the new host.
        '''),
    set_value('_MAX_API_VERSION', "'{{microversion}}'"),
]
