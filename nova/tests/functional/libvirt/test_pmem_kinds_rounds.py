# SPDX-License-Identifier: Apache-2.0

"""Rounds that look for what nobody works on, and those who do work on it."""

import os
import threading
from unittest import mock

import fixtures
import oslo_messaging

from nova.compute import pmem_leftovers
from nova.compute import pmem_moves
from nova.compute import pmem_recovery
from nova.compute import pmem_work
from nova.compute import rpcapi
from nova.scheduler.client import report
from nova.tests.functional.libvirt import pmem_kinds
from nova.tests.functional.libvirt import pmem_world
from nova.virt.libvirt.pmem import settle
from nova.virt.libvirt.pmem import tickets
from nova.virt.libvirt import pmem_copy

SOURCE, DESTINATION = pmem_kinds.HOSTS
NEW, SIZE = pmem_kinds.NEW, pmem_kinds.SIZE
MOVED = pmem_kinds.MOVED
DRIVER, MANAGER = pmem_kinds.DRIVER, pmem_kinds.MANAGER
RPC = 'nova.compute.rpcapi.ComputeAPI.'


class RoundTestBase(pmem_kinds.KindTestBase):

    def end_round(self, host):
        manager = self.computes[host].manager
        pmem_recovery._WATCHES[manager].round.result()

    def running(self, server):
        """Return the hosts on which the guest of a server runs."""
        return [host for host in pmem_kinds.HOSTS
                if self.guest_runs(host, server)]

    def restart_late(self, host):
        """Start a host again whose messages may still be on their way."""
        self.useFixture(fixtures.MockPatch(
            'nova.compute.pmem_recovery.LOST_AFTER', 60))
        self.restart(host)


class PmemLongRoundTests(RoundTestBase):
    """One round takes up two servers, and the first one takes its time."""

    NUMBER = 2

    def test_other_one_has_moved_meanwhile(self):
        # In the order of a round.
        stuck, moving = sorted(
            (self.boot(MOVED), self.boot(MOVED)), key=lambda each: each['id'])
        for server in stuck, moving:
            self.fill(server)
        self._can_not_be_brought_back(stuck)
        hanging = [self.pmem.inject(
            'hang', '%s_moved_%d' % (DESTINATION, number), at=SIZE // 2)
            for number in range(2)]
        self.ask_to_migrate(moving)
        pmem_world.wait_until(
            lambda: self.show(moving)['OS-EXT-STS:task_state'] ==
            'resize_migrating', 'it is copied')

        def go_on():
            for each in hanging:
                each.release()
            pmem_world.wait_until(lambda: self._has_moved(moving), 'it moved')

        self.hook(DRIVER + 'finish_revert_migration', 'before', 'taking back')
        hook = self.at('taking back', go_on)
        self.start_round(SOURCE)
        hook.wait()
        self.end_round(SOURCE)
        self.wait_until_quiet()
        self.assertEqual([DESTINATION], self.running(moving))
        self.assertEqual('VERIFY_RESIZE', self.status(moving))

    def _can_not_be_brought_back(self, server):
        self.fail_next(DRIVER + 'finish_revert_migration')
        self.fail_next(
            'nova.virt.libvirt.pmem.passes.Passes.run_without_guest')
        self.ask_to_migrate(server)
        self.wait_until_quiet()
        self.assertEqual('resize_migrating',
                         self.show(server)['OS-EXT-STS:task_state'])

    def _has_moved(self, server):
        work = pmem_work.work_of(self.computes[SOURCE].manager)
        return (self.status(server) == 'VERIFY_RESIZE' and
                not work.has(server['id']))


class PmemTwoAtOnceTests(RoundTestBase):

    def setUp(self):
        super().setUp()
        self.take_server()

    def test_message_that_comes_as_its_server_is_taken_up(self):
        """One of them starts the guest, or sends it back."""
        taken_up, begun = threading.Event(), threading.Event()
        go_on, finish = (pmem_moves.go_on_or_send_back,
                         pmem_copy.API.finish)

        def take_up(*args):
            taken_up.set()
            # Not, if it is kept out.
            begun.wait(2)
            return go_on(*args)

        def start(api, instance, migration):
            begun.set()
            pmem_world.wait_until(
                lambda: self.guest_runs(SOURCE, self.server), 'it is back')
            return finish(api, instance, migration)

        def rounds():
            self.useFixture(fixtures.MockPatchObject(
                pmem_moves, 'go_on_or_send_back', take_up))
            # What the first one sees is lost by the second.
            for _number in range(2):
                self.start_round(DESTINATION)
                pmem_world.wait_until(
                    lambda: taken_up.is_set() or self._round().done(),
                    'it is seen')

        self.useFixture(fixtures.MockPatchObject(
            pmem_copy.API, 'finish', start))
        self.hook(RPC + 'finish_resize', 'before', 'handing over')
        self.at('handing over', rounds)
        self.ask_to_migrate()
        self.wait_until_quiet()
        self.assertTrue(taken_up.is_set())
        self.assertEqual([], self.diary.surprises)
        self.assertEqual(1, len(self.running(self.server)))
        self.settle()

    def test_ticket_that_is_over_since_it_was_looked_at(self):
        """What is to be wiped now was to stay then."""
        decided = threading.Event()
        close = settle.close

        def close_late(ticket, left, *args, **kwargs):
            if ticket.state == tickets.OPEN and not decided.is_set():
                # The wipe of an earlier ticket takes as long, say.
                decided.set()
                pmem_world.wait_until(self._is_over, 'it goes back')
            return close(ticket, left, *args, **kwargs)

        def settle_now():
            with self.in_service(DESTINATION):
                pmem_leftovers.settle_soon(self.computes[DESTINATION].manager)
            decided.wait(pmem_world.PATIENCE)

        self.useFixture(fixtures.MockPatchObject(settle, 'close', close_late))
        self.hook(MANAGER + 'revert_resize', 'before', 'going back')
        self.at('going back', settle_now)
        self.fail_next(MANAGER + '_update_volume_attachments')
        self.ask_to_migrate()
        self.wait_until_quiet()
        self.assertTrue(decided.is_set())
        self.settle()
        self.boot(MOVED, host=DESTINATION)
        self.assertEqual([], self.dirty_starts)

    def _round(self):
        return pmem_recovery._WATCHES[self.computes[DESTINATION].manager].round

    def _is_over(self):
        with self.in_service(DESTINATION):
            return any(ticket.state == tickets.OVER
                       for ticket in tickets.open_tickets(DESTINATION))

    def test_data_that_is_wiped_before_the_guest_starts(self):
        """Whoever has done so: it is not started on zeros."""
        def wipe():
            with self.in_service(DESTINATION):
                for ticket in tickets.open_tickets(DESTINATION):
                    settle.close(ticket, ticket.targets,
                                 self.computes[DESTINATION].driver.pmem_api)

        self.hook(RPC + 'finish_resize', 'before', 'handing over')
        self.at('handing over', wipe)
        self.diary.may_go_back = True
        self.ask_to_migrate()
        self.wait_until_quiet()
        self.assertEqual([], self.diary.surprises)
        self.assert_in_order('ACTIVE', SOURCE)

    def test_source_that_hears_of_nothing_until_all_is_done(self):
        """It stores nothing on a guess."""
        cast = rpcapi.ComputeAPI.finish_resize

        def cast_and_fail(*args, **kwargs):
            cast(*args, **kwargs)
            raise oslo_messaging.MessagingTimeout('no answer of the broker')

        self.useFixture(fixtures.MockPatchObject(
            rpcapi.ComputeAPI, 'finish_resize', cast_and_fail))
        self._can_not_be_asked_for(lambda: pmem_world.wait_until(
            lambda: self.status(self.server) == 'VERIFY_RESIZE',
            'it has moved'))
        self.ask_to_migrate()
        self.wait_until_quiet()
        self.run_periodic_tasks()
        self.wait_until_quiet()
        self.ask_to_confirm()
        self.wait_until_quiet()
        self.assert_in_order('ACTIVE', DESTINATION)

    def test_source_that_does_not_know_whose_it_is(self):
        """Nobody is told that it has moved, and it is taken back."""
        phases = []
        self.useFixture(fixtures.MockPatch(
            MANAGER + '_send_resize_instance_notifications',
            lambda _manager, *args: phases.append(args[-1])))
        self.fail_next(
            'nova.virt.libvirt.pmem.passes.Passes.run_without_guest')
        self._can_not_be_asked_for()
        self.ask_to_migrate()
        self.wait_until_quiet()
        self.assertEqual(['start'], phases)
        self.assert_in_order('ACTIVE', SOURCE)

    def _can_not_be_asked_for(self, wait=lambda: None):
        """The database is away when a source asks whose its server is."""
        ask = pmem_moves._may_be_elsewhere

        def ask_in_vain(*args):
            wait()
            with mock.patch('nova.objects.Instance.get_by_uuid',
                            side_effect=OSError('no database')):
                return ask(*args)

        self.useFixture(fixtures.MockPatchObject(
            pmem_moves, '_may_be_elsewhere', ask_in_vain))


class PmemEarlierMoveTests(RoundTestBase):

    NUMBER = 2

    def test_wipe_of_it_does_not_speak_against_a_guest_that_started(self):
        self.take_server()
        self.move()
        used, = self.namespaces_of(self.server)
        self.pmem.inject('exit', used, side='zero', status=1, repeat=True)
        self.ask_to_revert()
        self.wait_until_quiet()
        self.diary.go_on()
        self.diary.may_go_back = False
        self.fail_next(MANAGER + '_complete_volume_attachments')
        self.ask_to_migrate()
        self.wait_until_quiet()
        self.assertEqual('VERIFY_RESIZE', self.status(self.server))
        self.assertEqual([DESTINATION], self.running(self.server))


class PmemThirdHostTests(RoundTestBase):

    def setUp(self):
        super().setUp()
        self.take_server()
        self.add_namespace('host3', MOVED)
        self._start('host3')

    def test_move_that_is_asked_for_again_at_once(self):
        """Its source was restarted, for an upgrade say."""
        self.hook(DRIVER + 'precopied_pmem_devices', 'before', 'copying')
        hook = self.at('copying', lambda: self.kill(SOURCE))
        self.act(self.server, 'migrate',
                 {'copy_pmem_devices': True, 'host': DESTINATION})
        hook.wait()
        self.wait_until_quiet()
        self.restart_late(SOURCE)
        self.wait_until_quiet()
        self.diary.go_on()
        self.act(self.server, 'migrate',
                 {'copy_pmem_devices': True, 'host': 'host3'})
        self.wait_until_quiet()
        self.assertEqual('VERIFY_RESIZE', self.status(self.server))
        self.messages_are_lost_at_once()
        self.run_periodic_tasks()
        self.wait_until_quiet()
        self.ask_to_confirm()
        self.wait_until_quiet()
        self.settle()
        self.assertEqual(['host3'], self._hosts_of(self.server['id']))
        for migration in self.migrations(self.server):
            self.assertEqual([], self._hosts_of(migration['uuid']))

    def test_confirm_that_lacks_its_end_as_the_server_moves_anew(self):
        """Placement is away for a moment, of which Nova says nothing."""
        self.act(self.server, 'migrate',
                 {'copy_pmem_devices': True, 'host': DESTINATION})
        self.wait_until_quiet()
        self.diary.go_on()
        delete = report.SchedulerReportClient.delete_allocation_for_instance
        lost = []

        def delete_next(client, ctxt, consumer, *args, **kwargs):
            if not lost:
                lost.append(consumer)
                return False
            return delete(client, ctxt, consumer, *args, **kwargs)

        self.useFixture(fixtures.MockPatchObject(
            report.SchedulerReportClient, 'delete_allocation_for_instance',
            delete_next))
        self.ask_to_confirm()
        self.wait_until_quiet()
        first, = self.migrations(self.server)
        self.assertEqual(([first['uuid']], 'confirming'),
                         (lost, first['status']))
        self.act(self.server, 'migrate',
                 {'copy_pmem_devices': True, 'host': 'host3'})
        self.wait_until_quiet()
        self.diary.go_on()
        self.ask_to_confirm()
        self.wait_until_quiet()
        self.messages_are_lost_at_once()
        self.settle()
        self.assertEqual(['host3'], self._hosts_of(self.server['id']))
        for migration in self.migrations(self.server):
            self.assertEqual('confirmed', migration['status'])
            self.assertEqual([], self._hosts_of(migration['uuid']))

    def _hosts_of(self, consumer):
        """Return the hosts on which something is allocated."""
        names = {uuid: host for host, uuid in self.compute_rp_uuids.items()}
        return sorted(names[provider] for provider in self.placement.get(
            '/allocations/' + consumer).body['allocations'])


class PmemFolderTests(RoundTestBase):

    def test_host_without_vpmem_whose_folder_can_not_be_read(self):
        """It starts, and says so."""
        path = os.path.join(self.state_path_of('host3'), tickets.FOLDER)
        with open(path, 'w'):
            pass
        with self._new_process('host3').running():
            self.start_compute('host3')
        self.wait_until_quiet()
        self.assertIn('Not a directory', self.stdlog.logger.output)
