# SPDX-License-Identifier: Apache-2.0

"""Who may ask for vPMEM data to be copied, besides moving the server."""

from oslo_policy import policy

from nova.policies import base

RULES = {
    'resize': 'os_compute_api:servers:resize:copy_pmem_devices',
    'migrate': 'os_compute_api:os-migrate-server:migrate:copy_pmem_devices',
}


def list_rules():
    """Return the rules; by default who may move a server may copy."""
    return [
        policy.DocumentedRuleDefault(
            name=RULES[action], check_str=check,
            description='Copy the vPMEM data of a server with the %s' % action,
            operations=[{
                'method': 'POST',
                'path': '/servers/{server_id}/action (%s)' % action}],
            scope_types=['project'])
        for action, check in (
            ('resize', base.PROJECT_MEMBER_OR_ADMIN),
            ('migrate', base.PROJECT_MANAGER_OR_ADMIN))]
