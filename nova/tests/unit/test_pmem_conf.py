# SPDX-License-Identifier: Apache-2.0

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
