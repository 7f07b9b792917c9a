# SPDX-License-Identifier: Apache-2.0
"""``make bench``: run all lines, print a table, write ``bench.json``."""

import argparse
import datetime
import functools
import json
import pathlib
import platform
import statistics
import subprocess

from bench import measure
from bench import place

MIB = 1024 * 1024
GIGABIT = 10 ** 9 // 8

#: What nova-compute asks for unless told otherwise.
OPTIONS = {'streams': 2, 'extent': 8 * MIB}

ours = functools.partial(measure.mover, **OPTIONS)


def rounds(where: place.Place, number: int, copies: dict[str, measure.Copy],
           prepare: str = 'clear_target') -> dict[str, list[measure.Taken]]:
    """Run copies in turn, and check each.

    :param prepare: what to do with the target before each
    """
    taken: dict[str, list[measure.Taken]] = {name: [] for name in copies}
    for _ in range(number):
        for name, copy in copies.items():
            getattr(where, prepare)()
            taken[name].append(copy(where))
            if not where.is_copied():
                raise RuntimeError('%s has not copied' % name)
    return taken


def median(takens: list[measure.Taken]) -> float:
    return statistics.median(taken.seconds for taken in takens)


class Report:
    """Lines of a table, and numbers for ``bench.json``."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, ...]] = []
        self.numbers: dict[str, object] = {}

    def add(self, title: str,
            taken: dict[str, list[measure.Taken]]) -> None:
        """Add a row for each copy, compared with the first one."""
        first = median(next(iter(taken.values())))
        for name, takens in taken.items():
            seconds = sorted(each.seconds for each in takens)
            self.rows.append((
                title, name, '%.2f' % median(takens),
                '%.2f to %.2f' % (seconds[0], seconds[-1]),
                '%.2f' % (median(takens) / first)))
            title = ''
            print('  '.join(self.rows[-1]), flush=True)

    def table(self) -> str:
        """Return the rows in reStructuredText."""
        head = ('data', 'copy', 'median s', 'spread', 'of the first')
        rows = [head, *self.rows]
        widths = [max(map(len, column)) for column in zip(*rows)]
        line = '  '.join('=' * width for width in widths)
        texts = ['  '.join(cell.ljust(width) for cell, width in zip(
            row, widths)).rstrip() for row in rows]
        # An empty first cell would make the row part of the one above.
        texts = [text if text.strip() == text else '\\ ' + text[2:]
                 for text in texts]
        return '\n'.join([line, texts[0], line, *texts[1:], line])


def random_data(where: place.Place, report: Report, number: int) -> None:
    where.fill_random()
    taken = rounds(where, number, {
        'naive pipe': measure.naive, 'pipe with digests':
        measure.digest_pipe, 'ours': ours})
    report.add('random', taken)
    whole = median(taken['ours'])
    report.numbers['random_vs_naive'] = whole / median(taken['naive pipe'])
    report.numbers['random_vs_digest_pipe'] = whole / median(
        taken['pipe with digests'])


def sparse_data(where: place.Place, report: Report, number: int) -> None:
    non_zero = where.fill_sparse()
    taken = rounds(where, number, {
        'naive pipe': measure.naive, 'ours': ours})
    report.add('10 % not zero', taken)
    report.numbers['sparse_vs_naive'] = (
        median(taken['ours']) / median(taken['naive pipe']))
    report.numbers['sparse_wire_over_nonzero'] = (
        taken['ours'][0].wire / non_zero)


def other_data(where: place.Place, report: Report, number: int) -> None:
    for title, fill in (('all zero', where.fill_zero),
                        ('compressible', where.fill_text)):
        fill()
        report.add(title, rounds(where, number, {
            'naive pipe': measure.naive, 'ours': ours}))


def resumed(where: place.Place, report: Report, number: int) -> None:
    """A second sender finds 90 % of the extents there."""
    where.fill_random()
    cut = where.size // 10 * 9

    def resume(where: place.Place) -> measure.Taken:
        with open(where.target, 'r+b') as target:
            with open(where.source, 'rb') as source:
                for _ in range(0, cut, MIB):
                    target.write(source.read(MIB)[:cut - target.tell()])
        return ours(where, resume=True)

    taken = rounds(where, number, {'whole': ours, 'resumed at 90 %': resume})
    report.add('resume', taken)
    report.numbers['resume_vs_whole'] = (
        median(taken['resumed at 90 %']) / median(taken['whole']))


def streams(where: place.Place, report: Report, number: int) -> None:
    report.add('streams', rounds(where, number, {
        '%d streams' % count: functools.partial(
            measure.mover, streams=count, extent=OPTIONS['extent'])
        for count in (1, 2, 4)}))


def gigabit(where: place.Place, report: Report) -> None:
    taken = rounds(where, 1, {'ours, limited': functools.partial(
        ours, bandwidth=GIGABIT)})
    report.add('1 Gb/s', taken)
    report.numbers['gigabit_vs_ideal'] = (
        median(taken['ours, limited']) * GIGABIT / where.size)


def resources(where: place.Place, report: Report) -> None:
    where.clear_target()
    taken = ours(where, watch=True)
    count = OPTIONS['streams']
    report.numbers['peak_rss_mib'] = {
        kind: kib / 1024 for kind, kib in taken.peak.items()}
    report.numbers['cpu_seconds'] = taken.cpu
    # A receiver serves one stream, the sender all of them.
    report.numbers['peak_rss_mib_per_stream'] = max(
        taken.peak['receiver'], taken.peak['sender'] / count) / 1024


def machine() -> str:
    model = next((line.split(':')[1].strip() for line in
                  pathlib.Path('/proc/cpuinfo').read_text().splitlines()
                  if line.startswith('model name')), 'unknown')
    cores = subprocess.run(['nproc'], capture_output=True, text=True)
    version = subprocess.run(['ssh', '-V'], capture_output=True, text=True)
    return '%s cores of %s, Linux %s, Python %s, %s, its default cipher' % (
        cores.stdout.strip(), model, platform.release(),
        platform.python_version(), version.stderr.split(',')[0])


def main() -> None:
    parser = argparse.ArgumentParser(prog='bench', description=__doc__)
    parser.add_argument('--size', type=int, default=1024, help='MiB')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--output', default='bench.json')
    options = parser.parse_args()
    report = Report()
    with place.Place(options.size * MIB) as where:
        random_data(where, report, options.rounds)
        streams(where, report, options.rounds)
        gigabit(where, report)
        resources(where, report)
        resumed(where, report, options.rounds)
        sparse_data(where, report, options.rounds)
        other_data(where, report, options.rounds)
    report.numbers.update(
        machine=machine(), size_mib=options.size, rounds=options.rounds,
        date=datetime.date.today().isoformat(), **OPTIONS)
    pathlib.Path(options.output).write_text(
        json.dumps(report.numbers, indent=2) + '\n')
    print(report.table())
    print(json.dumps(report.numbers, indent=2))


if __name__ == '__main__':
    main()
