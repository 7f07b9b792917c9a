# SPDX-License-Identifier: Apache-2.0

from unittest import mock

from nova import test
from nova.virt.pmem_transfer import layout
from nova.virt.pmem_transfer import pace

MIB = layout.MIB


class PaceTestCase(test.NoDBTestCase):
    """On a clock that goes on while somebody sleeps."""

    def setUp(self):
        super().setUp()
        self.clock = mock.Mock(now=100.0)
        self.clock.monotonic.side_effect = lambda: self.clock.now
        self.clock.sleep.side_effect = self._sleep
        patcher = mock.patch.object(pace, 'time', self.clock)
        patcher.start()
        self.addCleanup(patcher.stop)

    def _sleep(self, seconds):
        self.clock.now += seconds

    def test_no_limit(self):
        limit = pace.Pace(0)
        limit.wait(10 ** 12)
        self.clock.sleep.assert_not_called()
        self.assertEqual(pace.MOST, limit.chunk)

    def test_limit(self):
        limit = pace.Pace(MIB)
        for _ in range(40):
            limit.wait(limit.chunk)
        self.assertAlmostEqual(
            100 + 40 * limit.chunk / MIB, self.clock.now, places=6)

    def test_what_was_not_used_is_not_made_up_for(self):
        limit = pace.Pace(MIB)
        self._sleep(1000)
        limit.wait(MIB)
        self.assertAlmostEqual(1100 + 1 - limit.BURST, self.clock.now)

    def test_pieces(self):
        """Some of them a second, so that the limit is felt evenly."""
        self.assertEqual(pace.LEAST, pace.Pace(1).chunk)
        self.assertEqual(MIB // 10, pace.Pace(MIB).chunk)
        self.assertEqual(pace.MOST, pace.Pace(10 ** 12).chunk)
