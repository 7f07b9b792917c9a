# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import add_function
from novapatch.edit import add_import
from novapatch.edit import insert_after
from novapatch.edit import insert_before
from novapatch.edit import replace

EDITS = [
    add_import('from nova.virt.libvirt import pmem_copy'),
    add_import('from nova.virt.libvirt.pmem import namespaces'),
    add_import('from nova.virt.libvirt.pmem import pairing'),
    add_import('from nova.virt.pmem_transfer import layout as pmem_bytes'),

    # The vPMEM data goes with the server's disks, or with the server: not
    # when it is started here again, nor when starting it has failed.
    replace('LibvirtDriver._cleanup', 'self._get_vpmems(instance)',
            'self._get_own_vpmems(instance) '
            'if cleanup_instance_disks else []'),
    insert_before('LibvirtDriver.cleanup', 'return self._cleanup(...)', '''
        if destroy_secrets and not cleanup_instance_disks:
            # The server leaves this host and its disks, which are shared, do
            # not. Its vPMEM is never shared. (A hard reboot, or a start, does
            # not leave: it keeps the secrets, too.)
            vpmems = self._get_own_vpmems(instance)
            if vpmems:
                self._cleanup_vpmems(vpmems)

        '''),
    replace('LibvirtDriver._cleanup_vpmems', '''
        for vpmem in vpmems:
            try:
                $WIPE
            except Exception as e:
                raise $ERROR
        ''', '''
        pmem_copy.wipe_own(vpmems)
        '''),

    # Confirm wipes the namespaces that the server had on the source.
    replace('LibvirtDriver._cleanup_resize',
            "self._get_vpmems(instance, prefix='old')",
            "self._get_vpmems(instance, prefix='old_')"),
    replace('LibvirtDriver._cleanup_resize',
            'self._cleanup_vpmems(vpmems)', '''
        migration = objects.Migration.get_by_id(
            context, instance.migration_context.migration_id)
        pmem_copy.wipe_old(
            migration.source_compute, instance, migration, vpmems,
            namespaces.list_namespaces)
        '''),

    insert_after('LibvirtDriver._update_provider_tree_for_vpmems',
                 'inventory[rc] = $X', '''
        # What waits to be wiped is not offered to the scheduler.
        inventory[rc]['reserved'] = len(unwiped.intersection(
            vpmem.name for vpmem in vpmems))
        '''),
    insert_after('LibvirtDriver._update_provider_tree_for_vpmems',
                 'prov_data = $X', '''
        unwiped = pmem_copy.unwiped_names()
        '''),

    # A server whose move is rolled back early has no old flavor yet.
    replace('LibvirtDriver._finish_revert_migration_vtpm',
            'instance.old_flavor', 'instance.old_flavor or instance.flavor'),

    insert_before('LibvirtDriver.migrate_disk_and_power_off',
                  'ephemerals = $X', '''
        self._check_pmem_sources(instance, flavor)

        '''),
    insert_after('LibvirtDriver.migrate_disk_and_power_off',
                 'libvirt_utils.save_and_migrate_vtpm_dir(...)', '''

        self._copy_pmem_devices(
            instance, flavor, on_execute, on_completion)
        '''),
    insert_before('LibvirtDriver.finish_migration',
                  'block_disk_info = $X', '''
        if 'migration_context' in instance and pmem_copy.is_wanted(instance):
            # Nobody else may write to the server's vPMEM from here on.
            pmem_copy.finish(migration, namespaces.list_namespaces)
            instance.progress = 0

        '''),
    insert_before('LibvirtDriver._create_guest', 'return guest', '''
        pmem_copy.started(instance)
        '''),
    insert_before('LibvirtDriver._get_ordered_vpmems',
                  'return ordered_vpmems', '''
        pmem_copy.refuse_dirty(
            instance.uuid, [vpmem.name for vpmem in ordered_vpmems])
        ordered_vpmems = namespaces.as_they_are_now(ordered_vpmems)
        '''),
    add_function('''
        def prepare_pmem_copy(self, context, instance, migration):
            claimed = self._get_vpmem_resources(
                self._get_resources(instance, prefix='new_'))
            try:
                pairs = self._pair_pmem_devices(instance, instance.new_flavor)
            except pmem_bytes.DevicesDoNotFit as error:
                raise exception.ComputeResourcesUnavailable(reason=error)
            if claimed:
                pmem_copy.prepare(
                    instance, migration,
                    [resource.metadata for resource in claimed], pairs,
                    namespaces.list_namespaces,
                    lambda: self._get_vpmem_nodes_of_others(instance))

        def _get_own_vpmems(self, instance):
            if ('deleted' in instance and instance.deleted and
                    instance.node != self._host.get_hostname()):
                # It was deleted while it was elsewhere; what it had there is
                # not ours, though it may have the name of one of ours.
                return []
            if pmem_copy.is_elsewhere(instance, self._host.get_hostname()):
                return []
            return self._get_vpmems(instance)

        def dirty_pmem_namespaces(self):
            return pmem_copy.dirty_names(known=self._vpmems_by_name)

        def unavailable_pmem_namespaces(self):
            names = self.dirty_pmem_namespaces()
            for guest, nodes in self._get_guests_with_vpmem():
                names.update(
                    name for name, vpmem in self._vpmems_by_name.items()
                    if vpmem.devpath in nodes)
                # The nodes of one that does not run are of the time when it
                # was defined.
                names.update(pmem_copy.names_of_server(
                    guest.uuid, self._host.get_hostname()))
            return names

        def _get_guests_with_vpmem(self):
            """Yield guests of this host, and the paths of their vPMEM."""
            for guest in self._host.list_guests(only_running=False):
                try:
                    domain = etree.fromstring(guest.get_xml_desc())
                except libvirt.libvirtError:
                    # It is gone.
                    continue
                nodes = {path.text for path in domain.findall(
                    "./devices/memory[@model='nvdimm']/source/path")}
                if nodes:
                    yield guest, nodes

        def _get_vpmem_nodes_of_others(self, instance):
            return set().union(*(
                nodes for guest, nodes in self._get_guests_with_vpmem()
                if guest.uuid != instance.uuid))

        def settle_pmem_copies(self, context, host):
            return pmem_copy.settle(
                context, host, namespaces.list_namespaces)

        def _pair_pmem_devices(self, instance, new_flavor):
            """Pair the devices of a move that copies; none for others."""
            if not pmem_copy.is_wanted(instance):
                return []
            move = instance.migration_context
            sources = self._get_ordered_vpmem_resources(
                move.old_resources or [], instance.flavor)
            targets = self._get_ordered_vpmem_resources(
                move.new_resources or [], new_flavor)
            return pairing.pair_devices(
                [resource.metadata for resource in sources],
                [resource.metadata for resource in targets])

        def _check_pmem_sources(self, instance, new_flavor):
            pairs = self._pair_pmem_devices(instance, new_flavor)
            if not pairs:
                return
            try:
                pmem_copy.check_sources(pairs, namespaces.list_namespaces())
            except Exception as error:
                raise exception.InstanceFaultRollback(error)

        def _copy_pmem_devices(self, instance, new_flavor, on_execute,
                               on_completion):
            pairs = self._pair_pmem_devices(instance, new_flavor)
            if pairs:
                migration = objects.Migration.get_by_id(
                    instance._context, instance.migration_context.migration_id)
                with compute_utils.EventReporter(
                        instance._context, 'compute_copy_pmem_devices',
                        migration.source_compute, instance.uuid):
                    pmem_copy.copy(
                        instance, migration, pairs,
                        namespaces.list_namespaces(), on_execute,
                        on_completion)
        ''', after='LibvirtDriver._cleanup_remote_migration'),
]
