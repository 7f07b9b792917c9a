# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import add_function

EDITS = [
    add_function('''
        def prepare_pmem_copy(self, context, instance, migration):
            """Check claimed vPMEM devices, and make them ready for a copy.

            Called on the destination of every resize and cold migration,
            after the claim; the migration context says whether the server's
            data is to be copied. Drivers without vPMEM have nothing to do.

            :param nova.context.RequestContext context: the request context
            :param nova.objects.instance.Instance instance: the server, with
                the claim in its migration context
            :param nova.objects.Migration migration: the move
            :raises nova.exception.ComputeResourcesUnavailable: if the devices
                can't take the data; the claim fails then
            """
            pass

        def settle_pmem_copies(self, context, host):
            """Wipe what copies of vPMEM data that came to nothing have left.

            Called when the service starts, periodically, and before a move
            claims resources.

            :param nova.context.RequestContext context: an admin context
            :param host: the name of this compute host
            :returns: what was settled: objects with ``instance_uuid``,
                ``migration_uuid``, and ``kind``, which is ``receive`` on the
                destination and ``hold`` or ``wipe`` on the source of the move
            """
            return []

        def dirty_pmem_namespaces(self):
            """Return what must not be claimed before it is wiped.

            :returns: a set of identifiers of resources
            """
            return set()
        ''', after='ComputeDriver.migrate_disk_and_power_off'),
]
