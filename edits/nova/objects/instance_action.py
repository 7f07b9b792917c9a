# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import insert_after

EDITS = [
    insert_after('InstanceActionEvent.pack_action_event_finish',
                 "values['result'] = 'Success'", '''
        if isinstance(exc_val, str):
            # A success can have something to tell, too.
            values['details'] = exc_val[:255]
        '''),
]
