# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import insert_before

# Tests that run at the same time have namespaces of the same names.
EDITS = [
    insert_before('VPMEMTestBase.setUp', 'self.fake_pmem_namespaces = $X', '''
        self.flags(state_path=self.useFixture(fixtures.TempDir()).path)
        '''),
]
