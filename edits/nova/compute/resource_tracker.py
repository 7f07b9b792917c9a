# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import insert_after

EDITS = [
    insert_after('ResourceTracker._claim_resources', 'free = $X', '''
        unavailable = self.driver.unavailable_pmem_namespaces()
        free = {each for each in free if each.identifier not in unavailable}
        '''),
]
