# SPDX-License-Identifier: Apache-2.0

"""How a request asks for a server's vPMEM data to be copied."""

import copy

from oslo_utils import strutils

from nova.api.openstack import api_version_request
from nova.api.validation import parameter_types
from nova.policies import pmem_copy as policies

#: The microversion that brought the parameter.
MICROVERSION = '2.105'

PARAMETER = 'copy_pmem_devices'

# Up to microversion 2.55 the body of migrate was never validated. It still is
# not, but for a parameter that would be ignored at the price of the data.
migrate_not_validated = {
    'type': ['object', 'null'],
    'properties': {
        'migrate': {'not': {'type': 'object', 'required': [PARAMETER]}},
    },
    'additionalProperties': True,
}


def extended(schema):
    """Return the schema of an action with the parameter added."""
    schema = copy.deepcopy(schema)
    action, = schema['properties'].values()
    action['properties'][PARAMETER] = parameter_types.boolean
    return schema


def resize_arguments(req, instance, body, action):
    """Return what ``compute.API.resize`` is to be told beyond the usual.

    Nothing is returned for a request that does not ask for a copy, so that
    such a request takes the path it always took.

    :param body: the validated request body
    :param action: ``resize`` or ``migrate``
    :returns: keyword arguments
    :raises PolicyNotAuthorized: if it may not ask for one
    """
    if not api_version_request.is_supported(req, MICROVERSION):
        # Up to microversion 2.55 the body of migrate can be anything.
        return {}
    wish = (body[action] or {}).get(PARAMETER, False)
    if not strutils.bool_from_string(wish, strict=True):
        return {}
    req.environ['nova.context'].can(policies.RULES[action], target={
        'user_id': instance.user_id, 'project_id': instance.project_id})
    return {PARAMETER: True}
