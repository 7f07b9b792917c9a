# SPDX-License-Identifier: Apache-2.0

"""``--copy-pmem-devices`` for ``openstack server resize`` and ``migrate``."""
