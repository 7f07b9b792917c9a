# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import insert_before

EDITS = [
    # Who ends a move may find that its server was deleted meanwhile. A second
    # record for it would keep anybody from reading it, and so its guest from
    # being removed.
    insert_before('instance_extra_update_by_uuid', 'LOG.debug(...)', '''
        if model_query(
                context, models.InstanceExtra, read_deleted='only'
        ).filter_by(instance_uuid=instance_uuid).first():
            raise exception.InstanceNotFound(instance_id=instance_uuid)
        '''),
]
