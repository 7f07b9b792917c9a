# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import add_function
from novapatch.edit import add_import
from novapatch.edit import insert_after
from novapatch.edit import insert_before
from novapatch.edit import replace

EDITS = [
    add_import('from nova.virt.libvirt import pmem_copy'),
    add_import('from nova.virt.libvirt import pmem_layout'),

    # Start and hard reboot keep the contents of the server's vPMEM.
    replace('LibvirtDriver._cleanup',
            'vpmems = self._get_vpmems(instance)', '''
        # A hard reboot, or a start, keeps the secrets for the guest that it is
        # about to start here again; so it keeps the vPMEM data.
        vpmems = self._get_vpmems(instance) if destroy_secrets else []
        '''),

    # Confirm wipes the namespaces that the server had on the source.
    replace('LibvirtDriver._cleanup_resize',
            "self._get_vpmems(instance, prefix='old')",
            "self._get_vpmems(instance, prefix='old_')"),

    # A server whose move is rolled back early has no old flavor yet.
    replace('LibvirtDriver._finish_revert_migration_vtpm',
            'instance.old_flavor', 'instance.old_flavor or instance.flavor'),

    insert_after('LibvirtDriver.migrate_disk_and_power_off',
                 'libvirt_utils.save_and_migrate_vtpm_dir(...)', '''

        self._copy_pmem_devices(
            instance, flavor, on_execute, on_completion)
        '''),
    insert_before('LibvirtDriver.finish_migration',
                  'block_disk_info = $X', '''
        if 'migration_context' in instance and pmem_copy.is_wanted(instance):
            # Nobody else may write to the server's vPMEM from here on.
            pmem_copy.finish(migration, self._get_vpmems_on_host)

        '''),
    insert_before('LibvirtDriver._get_ordered_vpmems',
                  'return ordered_vpmems', '''
        pmem_copy.refuse_dirty(
            instance.uuid, [vpmem.name for vpmem in ordered_vpmems])
        '''),
    add_function('''
        def prepare_pmem_copy(self, context, instance, migration):
            try:
                pairs = self._pair_pmem_devices(instance, instance.new_flavor)
            except pmem_layout.DevicesDoNotFit as error:
                raise exception.ComputeResourcesUnavailable(reason=error)
            if pairs:
                pmem_copy.prepare(
                    instance, migration, pairs, self._get_vpmems_on_host())

        def settle_pmem_copies(self, context, host):
            return pmem_copy.settle(context, host, self._get_vpmems_on_host)

        def _pair_pmem_devices(self, instance, new_flavor):
            """Pair the devices of a move that copies; none for others."""
            if not pmem_copy.is_wanted(instance):
                return []
            move = instance.migration_context
            sources = self._get_ordered_vpmem_resources(
                move.old_resources or [], instance.flavor)
            targets = self._get_ordered_vpmem_resources(
                move.new_resources or [], new_flavor)
            return pmem_layout.pair_devices(
                [resource.metadata for resource in sources],
                [resource.metadata for resource in targets])

        def _copy_pmem_devices(self, instance, new_flavor, on_execute,
                               on_completion):
            pairs = self._pair_pmem_devices(instance, new_flavor)
            if pairs:
                migration = objects.Migration.get_by_id(
                    instance._context, instance.migration_context.migration_id)
                pmem_copy.copy(
                    instance, migration, pairs, self._get_vpmems_on_host(),
                    on_execute, on_completion)
        ''', after='LibvirtDriver._cleanup_remote_migration'),
]
