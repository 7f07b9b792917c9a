# SPDX-License-Identifier: Apache-2.0

"""The fault matrix, a test for each case; see ``pmem_faults``.

A sample that meets every fault and every moment runs by itself, and a part of
it with the other tests. The environment may say otherwise (``tools/faults``
does):

``PMEM_FAULTS``
  ``all`` for the whole
``PMEM_FAULTS_RESULTS``
  a directory for what came of it: a file for each case with its violations,
  or the reason why it could not be brought about; and its log, then
``PMEM_FAULTS_WITHOUT_WIPE``
  leave out the wipe when a ticket is closed, to see that the cases fail
"""

import os
import time

import fixtures
import testtools
from testtools import content

from nova.tests.functional.libvirt import pmem_faults
from nova.tests.functional.libvirt import pmem_moments
from nova.tests.functional.libvirt import pmem_world

#: A world is renewed after so many cases, since what it remembers grows.
CASES_PER_WORLD = 40

#: What zeroes namespaces before a ticket is closed.
WIPE = 'nova.virt.libvirt.pmem.namespaces.wipe'


class PmemMatrixTests(testtools.TestCase):
    """The matrix itself."""

    def test_sample_meets_every_fault_and_every_moment(self):
        matrix = pmem_faults.cases()
        sample = pmem_faults.sample(matrix)
        for kind in ('fault', 'moment'):
            self.assertEqual(
                {getattr(case, kind).name for case in matrix},
                {getattr(case, kind).name for case in sample})
        # Each moment needs a case; a few more, for faults that share theirs.
        self.assertLess(len(sample), 1.25 * len(
            {case.moment.name for case in matrix}))

    def test_each_combination_is_a_case_or_has_a_reason(self):
        lines = list(pmem_faults.describe())
        out = [line for line in lines if line.startswith('left out: ')]
        self.assertEqual(len(lines), len(set(lines)))
        self.assertEqual(
            len(pmem_moments.MOMENTS) * len(pmem_faults.FAULTS) +
            len(pmem_moments.FINISHING), len(lines))
        for line in out:
            self.assertNotEqual('', line.split(': ', 2)[2])


class PmemFaultTests(testtools.TestCase):
    """Whatever happens, nothing is lost, leaked, or left behind."""

    _world = None
    _cases = 0

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        pmem_world.needs_threads()

    @classmethod
    def tearDownClass(cls):
        cls._end_world()
        super().tearDownClass()

    @classmethod
    def _end_world(cls):
        world, PmemFaultTests._world = cls._world, None
        if world is not None:
            world.doCleanups()

    @classmethod
    def _begin_world(cls):
        if cls._world is None:
            world = pmem_world.WorldByHand()
            try:
                world.setUp()
            except BaseException:
                world.doCleanups()
                raise
            PmemFaultTests._world = world
            PmemFaultTests._cases = 0
            if 'PMEM_FAULTS_WITHOUT_WIPE' in os.environ:
                world.useFixture(fixtures.MockPatch(WIPE))
        PmemFaultTests._cases += 1
        return cls._world

    def _run(self, case):
        world = self._begin_world()
        started = time.monotonic()
        is_clean = False
        try:
            violations = ['violation: ' + text for text in case.run(world)]
            is_clean = not violations
        except BaseException as error:
            violations = ['ERROR: %s' % error]
            raise
        finally:
            _note(case, '.case', '%s %.1f seconds\n%s' % (
                'happened' if case.happened else 'error',
                time.monotonic() - started, ''.join(
                    '%s\n' % text for text in violations)))
            if not is_clean:
                self.addDetail('log', content.text_content(world.log()))
                _note(case, '.log', world.log())
            if not is_clean or self._cases >= CASES_PER_WORLD:
                self._end_world()
        self.assertEqual([], violations)


def _note(case, suffix, text):
    folder = os.environ.get('PMEM_FAULTS_RESULTS')
    if folder:
        with open(os.path.join(folder, case.name + suffix), 'w') as file:
            file.write(text)


def _add_tests():
    matrix = pmem_faults.cases()
    if os.environ.get('PMEM_FAULTS') != 'all':
        matrix = pmem_faults.sample(matrix)
    for case in matrix:

        def test(self, case=case):
            self._run(case)

        test.__name__ = 'test_' + case.name.replace('-', '_').replace(
            '.', '__')
        test.__doc__ = None
        setattr(PmemFaultTests, test.__name__, test)


_add_tests()
