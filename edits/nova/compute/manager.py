# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import add_context
from novapatch.edit import add_decorator
from novapatch.edit import add_function
from novapatch.edit import add_import
from novapatch.edit import insert_after
from novapatch.edit import insert_before
from novapatch.edit import replace

EDITS = [
    add_import('from nova.compute import pmem_ends'),
    add_import('from nova.compute import pmem_moves'),
    add_import('from nova.compute import pmem_recovery'),
    add_import('from nova.compute import pmem_work'),

    # The destination takes a server.
    add_context('ComputeManager._prep_resize',
                'with self.rt.resize_claim(...) as claim:',
                'pmem_moves.arrives_or_stays(\n'
                '    self, context, instance, flavor, node, request_spec)',
                first=True),
    insert_before(
        'ComputeManager._prep_resize',
        'LOG.info("Migrating", instance=instance)', '''
        pmem_moves.prepare(
            self, context, instance, claim.migration, request_spec)
        '''),
    add_decorator('ComputeManager.finish_resize',
                  '@pmem_moves.starts_or_sends_back',
                  below='reverts_task_state'),
    replace('ComputeManager.finish_resize', '''
        LOG.info(...)
        self._delete_allocation_after_move(...)
        ''', '''
        pmem_moves.let_source_go(self, context, instance, migration)
        '''),

    # The source sends it away.
    insert_before(
        'ComputeManager._resize_instance',
        'self._send_resize_instance_notifications(\n'
        '    $A, $B, $C, $D, fields.NotificationPhase.END)', '''
        if migration.status != 'post-migrating':
            return
        '''),
    add_context('ComputeManager._resize_instance',
                'with self._error_out_instance_on_exception(...), '
                'errors_out_migration_ctxt(migration):',
                'pmem_moves.goes_on_here_on_failure(\n'
                '    self, context, instance, migration)'),
    add_decorator('ComputeManager.resize_instance',
                  '@pmem_moves.leaves_in_its_turn',
                  below='reverts_task_state'),
    replace('ComputeManager._init_instance',
            'instance.task_state == task_states.RESIZE_MIGRATING',
            'pmem_work.is_taken_back_at_once(instance)'),
    replace('ComputeManager._init_instance',
            'CONF.resume_guests_state_on_host_boot',
            'pmem_work.may_resume(instance)'),

    replace('ComputeManager._terminate_volume_connections', '''
        attachment_id = self.volume_api.attachment_create(...)['id']
        self.volume_api.attachment_delete(...)
        bdm.attachment_id = attachment_id
        bdm.save()
        ''', '''
        pmem_work.disconnect_volume(self.volume_api, context, instance, bdm)
        '''),

    # What comes after.
    add_decorator('ComputeManager.confirm_resize',
                  '@pmem_ends.confirms_until_done',
                  above='wrap_exception()'),
    *(add_decorator('ComputeManager.' + step,
                    '@pmem_ends.reverts_until_done',
                    below='reverts_task_state')
      for step in ('revert_resize', 'finish_revert_resize')),
    replace('ComputeManager._finish_revert_resize',
            'instance.drop_migration_context()',
            'pmem_ends.drop_context(instance)'),

    # A server that goes back is not in ERROR for a moment.
    insert_before('ComputeManager._error_out_instance_on_exception',
                  'LOG.exception(...)', '''
        if pmem_work.keeps_its_state(instance):
            raise
        '''),

    # What this host has to go on with, at once and each minute.
    insert_after('ComputeManager.pre_start_hook',
                 'self.update_available_resource(...)', '''
        pmem_recovery.run(self)
        '''),
    add_function('''
        @periodic_task.periodic_task(spacing=60, run_immediately=True)
        def _take_up_pmem_moves(self, context):
            pmem_recovery.run(self)
        ''', before='ComputeManager.update_available_resource'),
]
