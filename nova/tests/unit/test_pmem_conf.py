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

"""Nova's options can be listed, ours among them."""

from nova.conf import opts
from nova import test


class PmemOptionsTestCase(test.NoDBTestCase):

    def test_generator_and_validator_find_the_options(self):
        # Both ask each module of nova.conf for its part.
        found = {
            option.name for group, options in opts.list_opts()
            if getattr(group, 'name', group) == 'libvirt'
            for option in options}
        self.assertIn('pmem_namespaces', found)
        self.assertNotEqual(
            set(), {name for name in found if name.startswith('pmem_copy_')})
