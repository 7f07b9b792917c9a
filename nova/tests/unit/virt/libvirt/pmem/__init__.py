# SPDX-License-Identifier: Apache-2.0

"""Tests of the rooms behind the door, nova.virt.libvirt.pmem_copy."""
