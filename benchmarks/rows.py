"""Rows of a benchmark's table."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from turns import Turns

Unit = Literal["ms", "1/s", "MiB", "s"]


@dataclasses.dataclass(frozen=True)
class Row:
    """One way of doing one thing.

    what: with the number of things done at once. way: how; `peer` is the way that it is compared with, None where
    there is none. value, low, high: median and range, of whatever `unit` says: milliseconds or seconds, things a
    second, or memory. times: how many times as fast as the peer (as little memory). deviation: the largest distance
    of a vertex from the peer's, mm. note: why there is no value, if there is none.
    """

    what: str
    way: str
    value: float | None
    low: float | None
    high: float | None
    unit: Unit
    gflops: float | None = None
    peer: str | None = None
    times: float | None = None
    deviation: float | None = None
    note: str | None = None

    def cells(self) -> tuple[str, ...]:
        """For a table with the columns `COLUMNS`."""
        return (
            self.what,
            self.way,
            self.note or "-" if self.value is None else f"{_digits(self.value)} {self.unit}",
            "-" if self.low is None or self.high is None else f"{_digits(self.low)} to {_digits(self.high)}",
            "-" if self.gflops is None else _digits(self.gflops),
            "-" if self.times is None else f"{self.times:.2f} ({self.peer})",
            "-" if self.deviation is None else f"{self.deviation:.2g}",
        )


COLUMNS = ("what", "way", "median", "range", "GFLOP/s", "times as good (as)", "largest deviation, mm")


def missing_row(what: str, way: str, note: str) -> Row:
    """A row for what could not be measured here. note: why, such as "not installed"."""
    return Row(what, way, None, None, None, "ms", note=note)


def markdown_table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table, each line ended."""
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def timed_rows(
    what: str,
    turns: Turns,
    count: int = 1,
    rate: bool = False,
    deviations: Mapping[str, float] | None = None,
    work: Mapping[str, float] | None = None,
) -> Iterator[Row]:
    """A row for each way; the first is the peer of the others. count: things done in a turn.

    rate: things a second in place of milliseconds a thing. deviations: by way, mm. work: by way, GFLOP a thing.
    """
    first = next(iter(turns.seconds))
    for way in turns.seconds:
        low, high = turns.spread(way)
        median, low, high = (1000 * seconds / count for seconds in (turns.median(way), low, high))
        if rate:
            median, low, high = 1000 / median, 1000 / high, 1000 / low
        peer = None if way == first else first
        yield Row(
            what,
            way,
            median,
            low,
            high,
            "1/s" if rate else "ms",
            gflops=work[way] * count / turns.median(way) if work and way in work else None,
            peer=peer,
            times=None if peer is None else turns.ratio(way),
            deviation=(deviations or {}).get(way),
        )


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
