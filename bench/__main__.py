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

#: What a guest writes together, if it writes 1 % here and there.
PIECES = {'': MIB, '_scattered': 64 * 1024}

#: Streams at once, and the cores from which on it makes sense to try.
SCALE, SCALE_CORES = (1, 2, 4, 8, 16), 8

ours = functools.partial(measure.mover, **OPTIONS)
again = functools.partial(measure.again, **OPTIONS)
last_pass = functools.partial(measure.last_pass, **OPTIONS)
fast_guest = functools.partial(measure.fast_guest, **OPTIONS)
Rounds = dict[str, list[measure.Taken]]


class Bench:
    """The lines of the benchmark, and what they come to."""

    def __init__(self, rounds: int) -> None:
        self._number = rounds
        self.report = bench_report.Report()

    def rounds(self, where: place.Place, title: str,
               copies: dict[str, measure.Copy],
               onto: abc.Collection[str] = ()) -> Rounds:
        """Run copies in turns, and check each.

        :param onto: those that find what the one before has left
        """
        taken: Rounds = {name: [] for name in copies}
        for _ in range(self._number):
            for name, copy in copies.items():
                if name not in onto:
                    where.prepare()
                before = where.cpu()
                taken[name].append(copy(where))
                taken[name][-1].cpu = where.cpu() - before
                if not where.is_copied():
                    raise RuntimeError('%s has not copied' % name)
        self.report.add(title, taken)
        return taken

    def random(self, where: place.Place) -> None:
        where.fill_random()
        naive, same, digests = (
            'naive pipe', 'naive pipe, our cipher', 'pipe with digests')
        taken = self.rounds(where, 'random', {
            naive: measure.naive, same: functools.partial(
                measure.naive, ssh=measure.SSH_WITH_OUR_CIPHER),
            digests: measure.digest_pipe, 'ours': ours})
        for number, other in (('random_vs_naive', naive),
                              ('random_vs_naive_with_our_cipher', same),
                              ('random_vs_digest_pipe', digests)):
            self.report.ratio(number, taken, 'ours', other)
        self.report.ratio('cpu_vs_naive', taken, 'ours', naive, of='cpu')

    def streams(self, where: place.Place,
                counts: abc.Iterable[int] = (1, 2, 4)) -> None:
        where.fill_random()
        self.rounds(where, 'random', {
            'ours, streams: %d' % count: functools.partial(
                ours, streams=count) for count in counts})

    def ceiling(self, where: place.Place,
                counts: abc.Iterable[int] = (1, 2)) -> None:
        """What sending alone can do: nothing stands in its way but memory."""
        where.fill_random()
        taken: Rounds = {'streams: %d' % count: [] for count in counts}
        for _ in range(self._number):
            for count, takens in zip(counts, taken.values()):
                takens.append(measure.ceiling(
                    where, count, extent=OPTIONS['extent']))
        self.report.add('random, %d MiB, no ssh, only acknowledged' % (
            where.size * measure.DEVICES // MIB), taken)
        self.report.ratio('two_streams_vs_one', taken, 'streams: 1',
                          'streams: 2')

    def processes(self, where: place.Place) -> None:
        where.fill_random()
        where.prepare()
        taken = measure.watched(where, **OPTIONS)
        self.report.processes(taken)
        # On either host.
        self.report.numbers['peak_rss_mib_per_stream'] = round(max(
            taken['stream of the ' + end].peak
            for end in ('sender', 'receiver')) / 1024, 1)

    def resumed(self, where: place.Place, large: bool = False) -> None:
        """Another sender looks what is there, and all of it is."""
        where.fill_random()
        name = 'ours, all is there'
        taken = self.rounds(where, 'random' + _size(where, large),
                            {'ours': ours, name: again}, onto=[name])
        self.report.ratio('resume_vs_whole' + '_large' * large, taken, name,
                          'ours')

    def last_pass(self, where: place.Place, of: str = '', title: str = '',
                  **options: object) -> None:
        """How long a guest is off, that was copied while it ran.

        :param of: ends the names of the numbers
        """
        where.fill_random()
        names = {kind: 'ours, the last pass, 1 %% written, by %d KiB' % (
            piece // 1024) for kind, piece in PIECES.items()}
        taken = self.rounds(where, 'random' + title, {
            'ours': functools.partial(ours, **options),
            **{names[kind]: functools.partial(
                last_pass, piece=piece, **options)
               for kind, piece in PIECES.items()}}, onto=names.values())
        for kind, name in names.items():
            self.report.ratio('downtime_vs_whole%s%s' % (of, kind), taken,
                              name, 'ours')

    def fast_guest(self, where: place.Place, title: str,
                   **options: object) -> None:
        """A guest that writes four times as fast as the link carries."""
        where.fill_random()
        where.prepare()
        count, taken = fast_guest(where, 4 * link.GIGABIT, **options)
        self.report.numbers['passes_of_a_fast_guest'] = count
        self.report.add('random' + title, {
            'ours, the last pass, after %d that the guest outran' % count:
            [taken]})

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

    def last_pass_on_a_link(self, size: int) -> None:
        """The same on a link that is slower than comparing."""
        with self.link() as is_real, place.Place(size) as where:
            title = ', %s1 Gb/s%s' % (
                '' if is_real else 'limit of ', _size(where))
            options = {} if is_real else {'bandwidth': link.GIGABIT}
            self.last_pass(where, '_gigabit', title, **options)
            self.fast_guest(where, title, **options)

    def on_a_link(self, size: int) -> None:
        """Run the other lines of 1 Gb/s."""
        with self.link() as is_real, place.Place(size) as where:
            (self.gigabit if is_real else self.limited)(where)

    @contextlib.contextmanager
    def link(self) -> abc.Iterator[bool]:
        """Have a link of 1 Gb/s; give whether it could be had."""
        with contextlib.ExitStack() as stack:
            is_real = True
            try:
                stack.enter_context(link.gigabit())
            except OSError as error:
                print('no network namespace: %s' % error)
                is_real = False
            self.report.numbers['gigabit_by'] = (
                'a network namespace' if is_real else 'the bandwidth limit')
            yield is_real

    def run(self, size: int, large: int) -> None:
        """Run the lines that something is asked of.

        :param size: bytes of a device
        :param large: bytes of a larger one for some lines; 0 for none
        """
        with place.Place(size) as where:
            self.random(where)
            self.processes(where)
            self.ceiling(where)
            self.resumed(where)
            self.last_pass(where)
            self.sparse(where)
        if large:
            with place.Place(large) as where:
                self.sparse(where, large=True)
                self.resumed(where, large=True)
                self.last_pass(where, '_large', _size(where))
        self.last_pass_on_a_link(size)

    def run_others(self, size: int) -> None:
        with place.Place(size) as where:
            self.streams(where)
            self.zero(where)
            self.compressible(where)
            self.zlib(where)
        self.on_a_link(size // 2)

    def run_scale(self, size: int) -> None:
        with place.Place(size) as where:
            self.ceiling(where, SCALE)
            self.streams(where, SCALE)


def _size(where: place.Place, say: bool = True) -> str:
    return ', %d MiB' % (where.size // MIB) if say else ''


def machine() -> str:
    model = next((line.split(':')[1].strip() for line in
                  pathlib.Path('/proc/cpuinfo').read_text().splitlines()
                  if line.startswith('model name')), 'unknown')
    version = subprocess.run(['ssh', '-V'], capture_output=True, text=True)
    return '%d cores of %s, Linux %s, Python %s, %s' % (
        len(os.sched_getaffinity(0)), model, platform.release(),
        platform.python_version(), version.stderr.split(',')[0])


def main() -> None:
    parser = argparse.ArgumentParser(prog='bench', description=__doc__)
    parser.add_argument('--size', type=int, default=1024, help='MiB')
    parser.add_argument('--large', type=int, default=4096,
                        help='MiB of a larger device for some lines, or 0')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--all', action='store_true',
                        help='run also the lines that nothing is asked of')
    parser.add_argument('--scale', action='store_true',
                        help='run up to %d streams, and nothing else' %
                        max(SCALE))
    parser.add_argument('--output', default='bench.json')
    parser.add_argument('--doc', type=pathlib.Path,
                        help='page whose tables to replace')
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    if options.scale and cores < SCALE_CORES:
        print('--scale was not run: it takes %d cores, and here are %d' % (
            SCALE_CORES, cores))
        return
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
    size = options.size * MIB
    if options.scale:
        bench.run_scale(size)
    else:
        bench.run(size, options.large * MIB)
    if options.all:
        bench.run_others(size)
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
