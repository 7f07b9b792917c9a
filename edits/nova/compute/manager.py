# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import add_decorator
from novapatch.edit import add_function
from novapatch.edit import add_import
from novapatch.edit import insert_after
from novapatch.edit import insert_before
from novapatch.edit import insert_last
from novapatch.edit import replace
from novapatch.edit import wrap

EDITS = [
    add_import('from nova.compute import pmem_copy'),
    add_import('from nova.compute import pmem_recovery'),
    insert_before(
        'ComputeManager._prep_resize',
        'with self.rt.resize_claim(...) as claim:', '''
        if instance.uuid in pmem_recovery.settle(self, context):
            # An earlier move of the same server failed a moment ago. What it
            # left here is wiped now, but the resource tracker still counts
            # it as taken.
            self.rt.drop_move_claim(context, instance, node)
        '''),
    insert_before(
        'ComputeManager._prep_resize',
        'LOG.info("Migrating", instance=instance)', '''
        self._prepare_pmem_copy(
            context, instance, claim.migration, request_spec)
        '''),
    wrap('ComputeManager._prep_resize', '''
         self._prepare_pmem_copy(...)
         ...
         self.compute_rpcapi.resize_instance(...)
         ''', 'with pmem_recovery.stays_as_it_is_on_failure(instance):'),
    wrap('ComputeManager._prep_resize',
         'with self.rt.resize_claim(...) as claim:',
         'with pmem_copy.unharmed_by_dirt(self.driver):'),
    add_function('''
        def _prepare_pmem_copy(self, context, instance, migration,
                               request_spec):
            """Check the claimed vPMEM devices, and get them ready for a copy.

            Runs on the destination while the guest still runs on the source:
            what does not fit fails the claim, and the next host is tried.
            """
            try:
                if request_spec.copy_pmem_devices:
                    instance.migration_context.copy_pmem_devices = True
                    instance.save()
                self.driver.prepare_pmem_copy(context, instance, migration)
            except Exception as error:
                # If this was the last host to try, the server is as it was.
                raise exception.InstanceFaultRollback(inner_exception=error)
        ''', after='ComputeManager._prep_resize'),
    wrap('ComputeManager._resize_instance', '''
         network_info = self.network_api.get_instance_nw_info(...)
         ...
         self.compute_rpcapi.finish_resize(...)
         ''', '''
         with pmem_recovery.goes_on_here_on_failure(
                 self, context, instance, migration):
         '''),
    add_decorator('ComputeManager.finish_resize',
                  '@pmem_recovery.sends_back_on_failure',
                  above='wrap_exception()'),
    replace('ComputeManager.finish_resize', '''
        LOG.info(...)
        self._delete_allocation_after_move(...)
        ''', '''
        pmem_recovery.let_source_go(self, context, instance, migration)
        '''),
    insert_after('ComputeManager._init_instance', '''
        migration = objects.Migration.get_by_id_and_instance(...)
        ''', '''
        pmem_recovery.end_migration(self, context, instance, migration)
        '''),
    insert_before(
        'ComputeManager.update_available_resource',
        'compute_nodes_in_db = $X', '''
        # Before the claims of moves that ended are let go: their namespaces
        # are wiped first.
        pmem_recovery.settle(self, context)

        '''),
    # When what was claimed is known again, also after a restart.
    insert_last('ComputeManager.update_available_resource', '''

        if not startup:
            pmem_recovery.take_up(self, context)
        '''),
    add_decorator('ComputeManager.prep_resize',
                  '@pmem_recovery.is_under_way', above='wrap_exception()'),
    add_decorator('ComputeManager.confirm_resize',
                  '@pmem_recovery.is_confirmed_later',
                  above='wrap_exception()'),
    add_decorator('ComputeManager.resize_instance',
                  '@pmem_recovery.is_taken_back_later',
                  above='wrap_exception()'),
    *(add_decorator('ComputeManager.' + step, '@pmem_recovery.is_tried_again',
                    above='wrap_exception()')
      for step in ('revert_resize', 'finish_revert_resize')),
]
