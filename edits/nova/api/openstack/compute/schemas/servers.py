# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import insert_after
from novapatch.edit import MODULE

EDITS = [
    insert_after(MODULE, 'resize = $X', '''

        resize_v2105 = copy.deepcopy(resize)
        resize_v2105['properties']['resize']['properties'][
            'copy_pmem_devices'] = parameter_types.boolean
        '''),
]
