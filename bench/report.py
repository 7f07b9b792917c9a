# SPDX-License-Identifier: Apache-2.0
"""What was measured: tables for doc/benchmark.rst, and numbers."""

import pathlib
import re
import statistics
import typing as ty

from bench import measure

#: What is asked for, at most.
AT_MOST = {
    'random_vs_naive': 0.85,
    'random_vs_naive_with_our_cipher': 1.05,
    'random_vs_digest_pipe': 0.3,
    'cpu_vs_naive': 1,
    'peak_rss_mib_per_stream': 48,
    'sparse_vs_naive': 0.33,
    'sparse_vs_naive_large': 0.28,
    'sparse_wire_over_nonzero': 1.01,
    'resume_vs_whole': 0.28,
    'resume_vs_whole_large': 0.17,
    'downtime_vs_whole': 0.3,
    'downtime_vs_whole_large': 0.17,
    'downtime_vs_whole_gigabit': 0.15,
    'passes_of_a_fast_guest': 4,
}

#: And at least.
AT_LEAST = {'two_streams_vs_one': 1.7}

#: The place of the tables in a page.
_PLACE = re.compile(r'(?<=^\.\. bench: begin\n\n).*?(?=^\.\. bench: end$)',
                    re.MULTILINE | re.DOTALL)


def median(takens: list[measure.Taken], of: str = 'seconds') -> float:
    return statistics.median(getattr(taken, of) for taken in takens)


def table(head: tuple[str, ...], rows: ty.Iterable[tuple[str, ...]]) -> str:
    """Return a table in reStructuredText."""
    rows = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    line = '  '.join('=' * width for width in widths)
    texts = ['  '.join(cell.ljust(width) for cell, width in zip(
        row, widths)).rstrip() for row in rows]
    # An empty first cell would make the row part of the one above.
    texts = [text if text.strip() == text else '\\ ' + text[2:]
             for text in texts]
    return '\n'.join([line, texts[0], line, *texts[1:], line])


class Report:
    """Collects lines and numbers.

    :ivar numbers: flat; what ends up in ``bench.json``
    """

    def __init__(self) -> None:
        self._rows: list[tuple[str, ...]] = []
        self._processes: list[tuple[str, ...]] = []
        self.numbers: dict[str, ty.Any] = {}

    def add(self, title: str,
            taken: dict[str, list[measure.Taken]]) -> None:
        """Add a line for each copy, compared with the first one."""
        first = median(next(iter(taken.values())))
        for name, takens in taken.items():
            seconds = sorted(each.seconds for each in takens)
            cpu = median(takens, 'cpu')
            self._rows.append((
                title, name, '%.2f' % median(takens),
                '%.2f to %.2f' % (seconds[0], seconds[-1]),
                '%.2f' % (median(takens) / first),
                '%.2f' % cpu if cpu else ''))
            title = ''
            print('  '.join(self._rows[-1]), flush=True)

    def ratio(self, number: str, taken: dict[str, list[measure.Taken]],
              one: str, other: str, of: str = 'seconds') -> None:
        """Note the ratio of the medians of two copies."""
        self.numbers[number] = round(
            median(taken[one], of) / median(taken[other], of), 3)

    def processes(self, processes: dict[str, measure.Process]) -> None:
        """Note what each kind of process took."""
        for kind, each in processes.items():
            self._processes.append((
                kind, '%.2f' % each.cpu, '%.1f' % (each.peak / 1024)))

    def targets(self) -> list[tuple[str, ...]]:
        """Return what was asked for, and what was measured of it."""
        return [('``%s``' % name, '%s %g' % (how, limit),
                 '%.2f' % self.numbers[name])
                for how, limits in (('at most', AT_MOST),
                                    ('at least', AT_LEAST))
                for name, limit in limits.items() if name in self.numbers]

    def text(self) -> str:
        """Return all that was measured as a part of a page."""
        parts = [
            '%(date)s; %(size_mib)d MiB, %(streams)d streams, unless a line '
            'says otherwise; %(rounds)d rounds.\n%(machine)s.\n'
            'Its load before that was %(load_before).1f. Devices have pages '
            'of %(pages)s.' % self.numbers,
            table(('data', 'copy', 'median s', 'spread', 'of the first',
                   'CPU s'), self._rows)]
        if self.targets():
            parts += ['Against what is asked for:', table(
                ('number', 'target', 'measured'), self.targets())]
        if self._processes:
            parts += ['One copy of random data, by process:', table(
                ('process', 'CPU s', 'peak MiB'), self._processes)]
        return '\n\n'.join(parts) + '\n'

    def put_into(self, page: pathlib.Path) -> None:
        """Replace what a page says of an earlier run."""
        page.write_text(_PLACE.sub(
            lambda _old: self.text() + '\n', page.read_text()))
