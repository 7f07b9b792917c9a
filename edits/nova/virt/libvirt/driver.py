# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import add_function
from novapatch.edit import add_import
from novapatch.edit import insert_after
from novapatch.edit import insert_before
from novapatch.edit import replace

EDITS = [
    add_import('from nova.virt.libvirt import pmem_copy'),
    insert_before('LibvirtDriver.__init__',
                  'self._vpmems_by_name, self._vpmems_by_rc = $X', '''
        self.pmem_api = pmem_copy.API(self)
        '''),
    insert_before('LibvirtDriver.init_host', 'self._host.initialize()', '''
        self.pmem_api.host = host
        '''),
    # One odd namespace does not keep nova-compute from starting.
    replace('LibvirtDriver._discover_vpmems', 'self._get_vpmems_on_host()',
            'self.pmem_api.namespaces()'),

    # The vPMEM data goes with the server's disks, or with the server: not
    # when it is started here again, nor when starting it has failed.
    replace('LibvirtDriver._cleanup', '''
        vpmems = self._get_vpmems(instance)
        if vpmems:
            self._cleanup_vpmems(vpmems)
        ''', '''
        if cleanup_instance_disks:
            self.pmem_api.wipe_own(instance)
        '''),
    insert_before('LibvirtDriver.cleanup', 'return self._cleanup(...)', '''
        if destroy_secrets and not cleanup_instance_disks:
            # The server leaves this host and its disks, which are shared, do
            # not. Its vPMEM is never shared. (A hard reboot, or a start, does
            # not leave: it keeps the secrets, too.)
            self.pmem_api.wipe_own(instance)

        '''),
    replace('LibvirtDriver.cleanup_lingering_instance_resources', '''
        vpmems = self._get_vpmems(instance)
        if vpmems:
            self._cleanup_vpmems(vpmems)
        ''', '''
        self.pmem_api.wipe_own(instance)
        '''),

    # Confirm wipes the namespaces that the server had on the source.
    replace('LibvirtDriver._cleanup_resize', '''
        vpmems = self._get_vpmems(instance, prefix='old')
        if vpmems:
            self._cleanup_vpmems(vpmems)
        ''', '''
        self.pmem_api.wipe_left(instance)
        '''),

    # What waits to be wiped, or is odd, is not offered to the scheduler.
    insert_after('LibvirtDriver._update_provider_tree_for_vpmems',
                 'inventory[rc] = $X', '''
        inventory[rc]['reserved'] = self.pmem_api.count_unused(vpmems)
        '''),

    # A server whose move is rolled back early has no old flavor yet.
    replace('LibvirtDriver._finish_revert_migration_vtpm',
            'instance.old_flavor', 'instance.old_flavor or instance.flavor'),

    insert_after('LibvirtDriver.migrate_disk_and_power_off',
                 'libvirt_utils.save_and_migrate_vtpm_dir(...)', '''
        self.pmem_api.copy(instance)
        '''),
    insert_before('LibvirtDriver.finish_migration',
                  'block_disk_info = $X', '''
        self.pmem_api.finish(instance, migration)
        '''),
    insert_before('LibvirtDriver._create_guest',
                  'if power_on or pause:', '''
        self.pmem_api.started(instance)
        '''),
    replace('LibvirtDriver._get_ordered_vpmems', '''
        ordered_vpmems = $X
        return ordered_vpmems
        ''', '''
        return self.pmem_api.to_start_on(instance, ordered_vpmem_resources)
        '''),
    add_function('''
        def prepare_pmem_copy(self, context, instance, migration):
            self.pmem_api.prepare(instance, migration)

        def precopied_pmem_devices(self, context, instance, migration, is_on):
            return self.pmem_api.precopied(instance, migration, is_on)

        def settle_pmem_copies(self, context, give_back, closed):
            return self.pmem_api.settle(context, give_back, closed)

        def unavailable_pmem_namespaces(self):
            return self.pmem_api.unavailable_names()

        def has_pmem(self):
            return self.pmem_api.is_needed()

        def has_started_on_pmem(self, instance):
            return self.pmem_api.has_started(instance)
        ''', after='LibvirtDriver._cleanup_remote_migration'),
]
