# SPDX-License-Identifier: Apache-2.0

from concurrent import futures
import queue
import threading
from unittest import mock

import fixtures
from oslo_utils.fixture import uuidsentinel as uuids

from nova import test
from nova.virt.libvirt.pmem import tickets
from nova.virt.libvirt.pmem import wipes

PATIENCE = 60


class WipesTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        self.pool = futures.ThreadPoolExecutor(10)
        self.addCleanup(self.pool.shutdown)
        self.spawn = self.useFixture(fixtures.MockPatch(
            'nova.thread_pool_factory.spawn_on',
            side_effect=lambda kind, *args: self.pool.submit(*args))).mock
        self.wipes = wipes.Wipes()
        self.hanging = threading.Event()
        self.addCleanup(self.hanging.set)
        self.closed = queue.Queue()

    def _ticket(self, name, state=tickets.OPEN):
        return tickets.Ticket(
            host='host1', migration_uuid=getattr(uuids, name),
            instance_uuid=uuids.instance, state=state, targets=())

    def _start(self, name, close=lambda: True):
        return self.wipes.start(self._ticket(name), close, self.closed.put)

    def _hang(self):
        return self.hanging.wait(PATIENCE)

    def test_what_comes_after_a_wipe_is_part_of_it(self):
        """Who waits for it finds it offered."""
        called = threading.Event()

        def closed(_ticket):
            called.set()
            self._hang()

        wipe = self.wipes.start(self._ticket('a'), lambda: True, closed)
        self.assertTrue(called.wait(PATIENCE))
        self.assertEqual([wipe], self.wipes.under_way())
        self.hanging.set()
        wipe.result(PATIENCE)

    def test_one_that_could_not_be_started(self):
        """The next one who asks has it done as well."""
        submit = self.spawn.side_effect
        self.spawn.side_effect = RuntimeError('no thread')
        for number in range(2 * wipes.AT_ONCE):
            self.assertRaises(RuntimeError, self._start, 'w%d' % number)
        self.spawn.side_effect = submit
        self._start('another')
        self.assertEqual(set(), futures.wait(
            self.wipes.under_way(), PATIENCE).not_done)
        self.assertEqual(2 * wipes.AT_ONCE + 1, self.closed.qsize())

    def test_what_is_decided_last_holds(self):
        for number in range(wipes.AT_ONCE):
            self._start('w%d' % number, self._hang)
        early = mock.Mock()
        first = self._start('a', early)
        late = self._ticket('a', tickets.OVER)
        self.assertIs(first, self.wipes.start(late, lambda: True))
        self.hanging.set()
        first.result(PATIENCE)
        early.assert_not_called()
        self.assertIn(late, [self.closed.get(timeout=PATIENCE)
                             for _ in range(wipes.AT_ONCE + 1)])

    def test_one_that_does_not_close_its_ticket(self):
        self._start('a', lambda: False).result(PATIENCE)
        self.assertTrue(self.closed.empty())
        self._start('a').result(PATIENCE)
        self.assertFalse(self.closed.empty())

    def test_one_that_is_killed(self):
        """Each time somebody else goes on."""
        for number in range(2 * wipes.AT_ONCE):
            wipe = self._start('a', mock.Mock(side_effect=SystemExit))
            self.assertRaises(SystemExit, wipe.result, PATIENCE)
        self._start('a').result(PATIENCE)

    def test_what_is_known(self):
        wipe = self._start('a', self._hang)
        self.assertTrue(self.wipes.has(self._ticket('a', tickets.OVER)))
        self.assertFalse(self.wipes.has(self._ticket('b')))
        self.hanging.set()
        wipe.result(PATIENCE)
        self.assertFalse(self.wipes.has(self._ticket('a')))
