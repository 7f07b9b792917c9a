# SPDX-License-Identifier: Apache-2.0
"""The changes to files that Nova already has, one module per file.

A text may use the values below as ``{{name}}``; they are read from the tree
that is being changed.
"""

from novapatch.edit import next_version
from novapatch.edit import this_version

# The release of each series that this was tried with. Others of the series are
# judged by their places.
RELEASES = ('33.0.2', '34.0.0')

_MICROVERSION = 'nova/api/openstack/api_version_request.py', '_MAX_API_VERSION'

# What pyproject.toml declares. A Nova that is changed where it is installed
# gets them beside its nova-compute.
COMMANDS = {
    'nova-pmem-copy': 'nova.cmd.pmem_copy:main',
    'nova-pmem-join': 'nova.cmd.pmem_join:main',
}

# What new files have instead is in "here", and no tree gets less: 2.104 means
# something else in Nova 34, so 33 has 2.105, too, and nothing new in 2.104.
VALUES = {
    'microversion': next_version(*_MICROVERSION, here='2.105'),
    'microversion_before': this_version(*_MICROVERSION, here='2.104'),
    'request_spec_before': this_version(
        'nova/objects/request_spec.py', 'RequestSpec.VERSION', here='1.15'),
    'service_version': next_version(
        'nova/objects/service.py', 'SERVICE_VERSION'),
}
