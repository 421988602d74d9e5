"""What an API process counts, in cells of memory that the processes of one API share.

`prometheus-client` counts behind a lock and a look-up of labels, which is a good part of what a request costs here. All
labels of the surface are known beforehand, so each has a cell with a fixed place: counting is an addition. What was
answered as asked is not even added at once: its times are gathered, and put into the cells many at a time, some times a
second. A process that is started again goes on in the row of the one before, so that no counter ever runs backwards.
"""

from __future__ import annotations

import mmap
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from api.operations import OPERATIONS, Operation
from api.problems import METHOD_NOT_ALLOWED, NOT_FOUND, ProblemType

SECONDS_MAX: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
"""Upper bounds of the latency's buckets; the last one has none."""

_NS_MAX: Final = tuple(round(seconds * 1_000_000_000) for seconds in SECONDS_MAX)

OUTCOMES: Final = ("done", "refused", "failed")
"""Answered as asked (1xx to 3xx), refused (4xx), or not possible now (5xx)."""

OTHER: Final = "other"
NO_OPERATION: Final = "none"
GAUGES: Final[tuple[str, ...]] = ("alive_at_ms", "requests_in_flight", "lane_in_flight")
ADDED: Final[tuple[str, ...]] = (
    "cpu_us", "lane_sent", "lane_sent_again", "lane_connections", "lane_silences", "lane_shed", "sent_again",
    "begun_again",
)  # fmt: skip
"""Counted elsewhere in the process, and added here now and then."""

ALIVE_FOR_MS: Final = 5_000
GATHERED_MAX: Final = 256
"""Times of one operation that wait for their cells."""
_CELL_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Block:
    """Where an operation's cells are in a row: its outcomes, its problems, its latency's buckets, its time."""

    outcomes: int
    problems: Mapping[str, int]
    buckets: int
    nanoseconds: int


class Layout:
    """The place of everything in a row of cells."""

    def __init__(self, operations: Sequence[Operation] = OPERATIONS) -> None:
        self.gauges = {name: index for index, name in enumerate(GAUGES)}
        self.added = {name: index for index, name in enumerate(ADDED, len(GAUGES))}
        self.blocks: dict[str, Block] = {}
        self.length = len(GAUGES) + len(ADDED)
        for operation in operations:
            self._place(operation.operation_id, [kind.name for kind in operation.problems])
        self._place(NO_OPERATION, [NOT_FOUND.name, METHOD_NOT_ALLOWED.name])

    def _place(self, operation_id: str, problems: Sequence[str]) -> None:
        problems_at = self.length + len(OUTCOMES)
        buckets_at = problems_at + len(problems) + 1
        self.length = buckets_at + len(SECONDS_MAX) + 2
        self.blocks[operation_id] = Block(
            problems_at - len(OUTCOMES),
            {name: problems_at + index for index, name in enumerate([*problems, OTHER])},
            buckets_at,
            self.length - 1,
        )

    def bytes_of(self, processes: int) -> int:
        """What so many processes need."""
        return self.length * processes * _CELL_BYTES


LAYOUT: Final = Layout()


class RequestCounts:
    """One process's row, and a view of every row. Only this process writes to its own.

    `file` is a descriptor of memory for all `processes`, empty where there is but one; `number` is which of them this
    is, from 0. ValueError where the file is of another size: it belongs to another version.
    """

    def __init__(self, file: int | None = None, number: int = 0, processes: int = 1, layout: Layout = LAYOUT) -> None:
        size = layout.bytes_of(processes)
        memory: mmap.mmap | bytearray = bytearray(size) if file is None else mmap.mmap(file, 0)
        if len(memory) != size:
            raise ValueError(f"the shared counts have {len(memory)} bytes in the place of {size}")
        cells = memoryview(memory).cast("q")
        self.layout = layout
        self._rows = [cells[start : start + layout.length] for start in range(0, len(cells), layout.length)]
        self._row = self._rows[number]
        self._published = dict.fromkeys(ADDED, 0)
        self._gathered: list[tuple[Block, list[int]]] = []
        for name in GAUGES:
            self._row[layout.gauges[name]] = 0

    def counter_for(self, operation: Operation | None) -> Callable[[int, ProblemType | None, int], None]:
        """What counts an operation's answers (those of none at all): told the status, problem and nanoseconds."""
        row = self._row
        block = self.layout.blocks[NO_OPERATION if operation is None else operation.operation_id]
        done, buckets, nanoseconds, problems = block.outcomes, block.buckets, block.nanoseconds, block.problems
        other = problems[OTHER]
        took: list[int] = []
        self._gathered.append((block, took))

        def count(status: int, kind: ProblemType | None, took_ns: int) -> None:
            # The hot path. Only this process writes this row, so nothing is locked.
            if kind is None and status < 400:
                took.append(took_ns)
                if len(took) >= GATHERED_MAX:
                    _put_into(row, block, took)
                return
            row[done if status < 400 else done + 1 if status < 500 else done + 2] += 1
            if kind is not None:
                row[problems.get(kind.name, other)] += 1
            row[buckets + bisect_left(_NS_MAX, took_ns)] += 1
            row[nanoseconds] += took_ns

        return count

    def fold(self) -> None:
        """Put what is gathered into the cells; to be called where requests are counted, from no other thread."""
        for block, took in self._gathered:
            if took:
                _put_into(self._row, block, took)

    def publish(self, gauges: Mapping[str, int], added: Mapping[str, int]) -> None:
        """Note what stands now, and add what has been counted elsewhere since the last time."""
        self.fold()
        row, layout = self._row, self.layout
        for name, value in gauges.items():
            row[layout.gauges[name]] = value
        for name, value in added.items():
            row[layout.added[name]] += value - self._published[name]
            self._published[name] = value
        row[layout.gauges["alive_at_ms"]] = time.time_ns() // 1_000_000

    def own(self) -> Sequence[int]:
        """This process's cells; see `Layout`."""
        self.fold()
        return self._row

    def totals(self) -> tuple[list[int], int]:
        """Every cell summed over all processes, gauges over those alive; and how many those are. `fold` comes first."""
        alive_at = self.layout.gauges["alive_at_ms"]
        since_ms = time.time_ns() // 1_000_000 - ALIVE_FOR_MS
        alive = [row for row in self._rows if row[alive_at] >= since_ms]
        totals = [sum(row[index] for row in alive) for index in range(len(GAUGES))]
        totals += [sum(cells) for cells in zip(*(row[len(GAUGES) :] for row in self._rows), strict=True)]
        return totals, len(alive)


def _put_into(row: memoryview, block: Block, took: list[int]) -> None:
    """Count so many answers as asked, by the times they took; empties the list."""
    row[block.outcomes] += len(took)
    row[block.nanoseconds] += sum(took)
    took.sort()
    counted = 0
    for index, bound in enumerate(_NS_MAX):
        within = bisect_right(took, bound)
        if within > counted:
            row[block.buckets + index] += within - counted
            counted = within
        if counted == len(took):
            break
    else:
        row[block.buckets + len(_NS_MAX)] += len(took) - counted
    took.clear()
