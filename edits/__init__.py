# SPDX-License-Identifier: Apache-2.0
"""The changes to files that Nova already has, one module per file.

A text may use the values below as ``{{name}}``; they are read from the tree
that is being changed.
"""

from novapatch.edit import next_version

RELEASES = ('34.0.0',)

VALUES = {
    'microversion': next_version(
        'nova/api/openstack/api_version_request.py', '_MAX_API_VERSION'),
    'service_version': next_version(
        'nova/objects/service.py', 'SERVICE_VERSION'),
}
