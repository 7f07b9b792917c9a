# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import insert_before

EDITS = [
    # Who ends a move may find that its server was deleted meanwhile. A second
    # record for it would keep anybody from reading it, and so its guest from
    # being removed.
    insert_before('instance_extra_update_by_uuid', 'LOG.debug(...)', '''
        _instance_get_by_uuid(context, instance_uuid, columns_to_join=[])
        '''),
]
