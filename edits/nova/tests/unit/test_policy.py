# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import append

EDITS = [
    append('RealRolePolicyTestCase.setUp',
           '"os_compute_api:%s:copy_pmem_devices"' % action,
           within='("compute:server:topology:index", ...)')
    for action in ('servers:resize', 'os-migrate-server:migrate')
]
