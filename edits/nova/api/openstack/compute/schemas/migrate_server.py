# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import insert_after
from novapatch.edit import MODULE

EDITS = [
    insert_after(MODULE, 'migrate = $X', '''

        # Up to microversion 2.55 the body was never validated. It still is
        # not, but for a parameter that would be ignored at the price of the
        # data.
        migrate_v21 = {
            'type': ['object', 'null'],
            'properties': {
                'migrate': {
                    'not': {
                        'type': 'object',
                        'required': ['copy_pmem_devices'],
                    },
                },
            },
            'additionalProperties': True,
        }

        migrate_v2105 = copy.deepcopy(migrate)
        migrate_v2105['properties']['migrate']['properties'][
            'copy_pmem_devices'] = parameter_types.boolean
        '''),
]
