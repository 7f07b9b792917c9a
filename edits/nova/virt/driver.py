# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import add_function
from novapatch.edit import add_import

EDITS = [
    add_import('import contextlib'),
    add_function('''
        def has_pmem(self):
            """Whether this host has vPMEM, or has to wipe some."""
            return False

        def prepare_pmem_copy(self, context, instance, migration):
            """Check claimed vPMEM devices, and make them ready for a copy.

            Called on the destination of each resize and cold migration.

            :raises ComputeResourcesUnavailable: if they can't take the data
            """

        def precopied_pmem_devices(self, context, instance, migration, is_on):
            """Find out whether vPMEM data can be copied, and begin to.

            Entered on the source of a move that copies, before the guest is
            touched, and left when the server has. What fails on entering has
            cost nothing.

            :param is_on: whether the guest runs; if not, nothing is copied yet
            :returns: a context manager
            """
            return contextlib.nullcontext()

        def has_started_on_pmem(self, instance):
            """Whether a guest that came by a copy may have run here."""
            return False

        def settle_pmem_copies(self, context, give_back, closed):
            """Wipe what moves have left here; return futures of the wipes.

            A ticket tells ``instance_uuid``, ``migration_uuid``, ``kind``.

            :param give_back: called with a ticket, and with its server, that
                is back; the ticket stays if that returns False
            :param closed: called with each ticket of which all is done
            """
            return []

        def unavailable_pmem_namespaces(self):
            """Return the names of vPMEM that must not be claimed."""
            return set()
        ''', after='ComputeDriver.migrate_disk_and_power_off'),
]
