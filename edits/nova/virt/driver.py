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

            :raises ComputeResourcesUnavailable: if they can't take the data
            """

        def precopied_pmem_devices(self, context, instance, migration, is_on):
            """Find out whether vPMEM data can be copied, and begin to.

            Entered on the source before the guest is touched: what fails then
            has cost nothing. Left when the server has.

            :param is_on: whether the guest runs; if not, nothing is copied yet
            """
            return contextlib.nullcontext()

        def has_started_on_pmem(self, instance):
            """Whether a guest that came by a copy may have run here."""
            return False

        def settle_pmem_copies(self, context, give_back, closed):
            """Wipe what moves have left here; return futures of the wipes.

            :param give_back: called with the ticket (``instance_uuid``,
                ``migration_uuid``, ``kind``) of a server that is back, and
                with that; the ticket stays if it returns False
            :param closed: called with each ticket of which all is done
            """
            return []

        def unavailable_pmem_namespaces(self):
            """Return the names of vPMEM that must not be claimed."""
            return set()
        ''', after='ComputeDriver.migrate_disk_and_power_off'),
]
