# SPDX-License-Identifier: Apache-2.0
"""``make bench``: run all lines, print tables, write ``bench.json``."""

import argparse
from collections import abc
import contextlib
import datetime
import functools
import json
import os
import pathlib
import platform
import subprocess
import time
import zlib

import psutil

from bench import link
from bench import measure
from bench import memory
from bench import place
from bench import report as bench_report

MIB = 1024 * 1024

#: What nova-compute asks for, but for the streams: two cores feed no more.
OPTIONS = {'streams': 2, 'extent': 8 * MIB}

#: The part of a copy after which its sender is killed.
CUT = 0.9

ours = functools.partial(measure.mover, **OPTIONS)
Rounds = dict[str, list[measure.Taken]]


class Bench:
    """The lines of the benchmark, and what they come to."""

    def __init__(self, rounds: int) -> None:
        self._number = rounds
        self.report = bench_report.Report()

    def rounds(self, where: place.Place, title: str,
               copies: dict[str, measure.Copy],
               prepare: abc.Callable[[place.Place], None] =
               place.Place.clear_target) -> Rounds:
        """Run copies in turns, and check each.

        :param prepare: what to do before each
        """
        taken: Rounds = {name: [] for name in copies}
        for _ in range(self._number):
            for name, copy in copies.items():
                prepare(where)
                taken[name].append(copy(where))
                if not where.is_copied():
                    raise RuntimeError('%s has not copied' % name)
        self.report.add(title, taken)
        return taken

    def random(self, where: place.Place) -> None:
        where.fill_random()
        taken = self.rounds(where, 'random', {
            'naive pipe': measure.naive,
            'pipe with digests': measure.digest_pipe, 'ours': ours})
        self.report.ratio('random_vs_naive', taken, 'ours', 'naive pipe')
        self.report.ratio('random_vs_digest_pipe', taken, 'ours',
                          'pipe with digests')

    def streams(self, where: place.Place) -> None:
        self.rounds(where, 'random', {
            'ours, streams: %d' % count: functools.partial(
                ours, streams=count) for count in (1, 2, 4)})

    def processes(self, where: place.Place) -> None:
        where.fill_random()
        where.clear_target()
        taken = measure.by_compute(where, **OPTIONS)
        self.report.processes(taken)
        # A receiver serves one stream, the sender all of them.
        self.report.numbers['peak_rss_mib_per_stream'] = round(max(
            taken.peak['receiver'],
            taken.peak['sender'] / OPTIONS['streams']) / 1024, 1)

    def resumed(self, where: place.Place, large: bool = False) -> None:
        """A sender that was killed is started again."""
        def resume(where: place.Place) -> measure.Taken:
            measure.cut(where, CUT, **OPTIONS)
            return ours(where, resume=True)

        where.fill_random()
        rest = 'ours, after a cut at %d %%' % (CUT * 100)
        taken = self.rounds(where, 'random' + _size(where, large),
                            {'ours': ours, rest: resume})
        self.report.ratio('resume_vs_whole' + '_large' * large, taken, rest,
                          'ours')

    def sparse(self, where: place.Place, large: bool = False) -> None:
        non_zero = where.fill_sparse()
        taken = self.rounds(where, '10 % not zero' + _size(where, large), {
            'naive pipe': measure.naive, 'ours': ours})
        self.report.ratio('sparse_vs_naive' + '_large' * large, taken, 'ours',
                          'naive pipe')
        if not large:
            self.report.numbers['sparse_wire_over_nonzero'] = round(
                taken['ours'][0].wire / non_zero, 4)

    def zero(self, where: place.Place) -> None:
        where.fill_zero()
        taken = self.rounds(where, 'all zero', {
            'naive pipe': measure.naive, 'ours': ours})
        self.report.ratio('zero_vs_naive', taken, 'ours', 'naive pipe')

    def compressible(self, where: place.Place) -> None:
        where.fill_text()
        taken = self.rounds(where, 'compressible', {
            'naive pipe': measure.naive, 'pipe with gzip -1':
            measure.gzip_pipe, 'ours': ours})
        self.report.ratio('compressible_vs_naive', taken, 'ours',
                          'naive pipe')
        self.report.ratio('gzip_vs_naive', taken, 'pipe with gzip -1',
                          'naive pipe')

    def zlib(self, where: place.Place) -> None:
        """What compressing one MiB costs; that of ``compressible``."""
        with open(where.source, 'rb') as source:
            piece = source.read(MIB)
        start = time.process_time()
        packed = [zlib.compress(piece, 1) for _ in range(20)]
        seconds = time.process_time() - start
        self.report.numbers['zlib_ratio'] = round(
            len(packed[0]) / len(piece), 3)
        self.report.numbers['zlib_mb_per_cpu_second'] = round(
            len(packed) * len(piece) / seconds / 1e6)

    def gigabit(self, where: place.Place) -> None:
        """What a link of 1 Gb/s makes of it, and compression of that."""
        size = ', 1 Gb/s' + _size(where)
        where.fill_random()
        taken = self.rounds(where, 'random' + size, {
            'naive pipe': measure.naive, 'ours': ours})
        self.report.ratio('gigabit_vs_naive', taken, 'ours', 'naive pipe')
        self._ideal(where, taken['ours'])
        where.fill_text()
        taken = self.rounds(where, 'compressible' + size, {
            'naive pipe': measure.naive, 'pipe with gzip -1':
            measure.gzip_pipe, 'ours': ours})
        self.report.ratio('gigabit_gzip_vs_naive', taken,
                          'pipe with gzip -1', 'naive pipe')

    def limited(self, where: place.Place) -> None:
        """The same where there can be no such link."""
        where.fill_random()
        taken = self.rounds(
            where, 'random, limit of 1 Gb/s' + _size(where),
            {'ours': functools.partial(ours, bandwidth=link.GIGABIT)})
        self._ideal(where, taken['ours'])

    def _ideal(self, where: place.Place,
               takens: list[measure.Taken]) -> None:
        self.report.numbers['gigabit_vs_ideal'] = round(
            bench_report.median(takens) * link.GIGABIT / where.size, 3)

    def on_a_link(self, size: int) -> None:
        """Run the lines of 1 Gb/s, on a real link if there can be one."""
        with contextlib.ExitStack() as stack:
            line = self.gigabit
            try:
                stack.enter_context(link.gigabit())
                self.report.numbers['gigabit_by'] = 'a network namespace'
            except OSError as error:
                print('no network namespace: %s' % error)
                self.report.numbers['gigabit_by'] = 'the bandwidth limit'
                line = self.limited
            line(stack.enter_context(place.Place(size)))

    def run(self, size: int, large: int) -> None:
        """Run all lines.

        :param size: bytes of a device
        :param large: bytes of a larger one for some lines; 0 for none
        """
        with place.Place(size) as where:
            self.random(where)
            self.streams(where)
            self.resumed(where)
            self.sparse(where)
            self.zero(where)
            self.compressible(where)
            self.zlib(where)
        self.on_a_link(size // 2)
        if large:
            with place.Place(large) as where:
                self.sparse(where, large=True)
                self.resumed(where, large=True)
        # The last one, for it imports all of Nova.
        with place.Place(size) as where:
            self.processes(where)


def _size(where: place.Place, say: bool = True) -> str:
    return ', %d MiB' % (where.size // MIB) if say else ''


def machine() -> str:
    model = next((line.split(':')[1].strip() for line in
                  pathlib.Path('/proc/cpuinfo').read_text().splitlines()
                  if line.startswith('model name')), 'unknown')
    version = subprocess.run(['ssh', '-V'], capture_output=True, text=True)
    return '%d cores of %s, Linux %s, Python %s, %s, its default cipher' % (
        len(os.sched_getaffinity(0)), model, platform.release(),
        platform.python_version(), version.stderr.split(',')[0])


def main() -> None:
    parser = argparse.ArgumentParser(prog='bench', description=__doc__)
    parser.add_argument('--size', type=int, default=1024, help='MiB')
    parser.add_argument('--large', type=int, default=4096,
                        help='MiB of a larger device for some lines, or 0')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--output', default='bench.json')
    parser.add_argument('--doc', type=pathlib.Path,
                        help='page whose tables to replace')
    options = parser.parse_args()
    bench = Bench(options.rounds)
    load = os.getloadavg()[0]
    pages = '2 MiB'
    try:
        memory.enlarge_pages()
    except OSError as error:
        print('no large pages: %s' % error)
        pages = '4 KiB'
    # Two devices, and room for who else is here.
    if options.large * MIB * 3 > psutil.virtual_memory().available:
        print('no memory for devices of %d MiB' % options.large)
        options.large = 0
    bench.run(options.size * MIB, options.large * MIB)
    report = bench.report
    report.numbers.update(
        machine=machine(), size_mib=options.size, rounds=options.rounds,
        load_before=load, pages=pages,
        date=datetime.date.today().isoformat(), **OPTIONS)
    text = json.dumps(report.numbers, indent=2)
    pathlib.Path(options.output).write_text(text + '\n')
    if options.doc:
        report.put_into(options.doc)
    print(report.text())
    print(text)


if __name__ == '__main__':
    main()
