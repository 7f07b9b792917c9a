# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import add_function

EDITS = [
    add_function('''
        def has_pmem(self):
            """Whether this host has vPMEM, or has to wipe some."""
            return False

        def prepare_pmem_copy(self, context, instance, migration):
            """Check claimed vPMEM devices, and make them ready for a copy.

            Called on the destination of each resize and cold migration.

            :raises ComputeResourcesUnavailable: if they can't take the data
            """

        def has_started_on_pmem(self, instance):
            """Whether a guest that came by a copy may have run here."""
            return False

        def settle_pmem_copies(self, context):
            """Wipe what moves have left here; return the tickets of it.

            A ticket tells ``instance_uuid``, ``migration_uuid``, ``kind``.
            """
            return []

        def unavailable_pmem_namespaces(self):
            """Return the names of vPMEM that must not be claimed."""
            return set()
        ''', after='ComputeDriver.migrate_disk_and_power_off'),
]
