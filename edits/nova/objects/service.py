# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import append
from novapatch.edit import bump

EDITS = [
    bump('SERVICE_VERSION'),
    append('SERVICE_VERSION_HISTORY', '''
        # Version {{service_version}}: Compute RPC v6.5:
        # Add support for copying vPMEM data on resize and cold migration
        {'compute_rpc': '6.5'}
        '''),
]
