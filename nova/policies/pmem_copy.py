#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

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
