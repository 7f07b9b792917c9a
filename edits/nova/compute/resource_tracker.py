# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import add_import
from novapatch.edit import insert_after
from novapatch.edit import replace

EDITS = [
    add_import('from nova.compute import pmem_ends'),
    insert_after('ResourceTracker._claim_resources', 'free = $X', '''
        unavailable = self.driver.unavailable_pmem_namespaces()
        free = {each for each in free if each.identifier not in unavailable}
        '''),
    # A move that copies is confirmed until all is done.
    replace('ResourceTracker.drop_move_claim_at_source', '''
        migration.status = 'confirmed'
        migration.save()
        ''', '''
        pmem_ends.note_confirmed(instance, migration)
        '''),
    replace('ResourceTracker.drop_move_claim_at_source',
            'instance.drop_migration_context()',
            'pmem_ends.drop_context(instance)'),
]
