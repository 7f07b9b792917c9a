# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import insert_after

EDITS = [
    insert_after('ResourceTracker._claim_resources', 'free = $X', '''
        unavailable = self.driver.unavailable_pmem_namespaces()
        free = {resource for resource in free
                if resource.identifier not in unavailable}
        '''),
]
