"""What the demo found, as text for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from penstock_cli.demo.load import LoadResult
from penstock_cli.demo.pictures import picture
from penstock_cli.traces.waterfall import Row, render

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class DemoResult:
    """All that the demo measured."""

    images: NDArray[np.float32]
    """Shape (images, 1, 8, 8)."""
    labels: NDArray[np.int64]
    direct: NDArray[np.int64]
    """The model run directly, shape (images,)."""
    load: LoadResult
    connections: int
    mean_batch: float
    cpu_seconds: float
    """Of the replicas' servers under the load."""
    resident_bytes: float
    """Of one replica's server."""
    size_bytes: int
    """Of the model's files."""
    trace: Sequence[Row]
    failed_in_warm_up: int = 0
    may_differ: float = 0.0
    """Share of the answers."""

    @property
    def served(self) -> NDArray[np.int64]:
        """Predictions through the gateway, -1 where none came; shape (images,)."""
        predicted = (answer.predicted for answer in self.load.answers)
        return np.array([-1 if each is None else each for each in predicted], dtype=np.int64)

    @property
    def differing(self) -> int:
        """Answers that are not the model's own."""
        return int((self.served != self.direct).sum())

    @property
    def passed(self) -> bool:
        """Whether every answer came and is the model's own.

        A model with int8 activations that are scaled at run time may answer otherwise in another batch: one answer in a
        hundred may differ.
        """
        complete = len(self.load.answers) == len(self.labels) and not self.load.failed and not self.failed_in_warm_up
        return complete and self.differing <= len(self.labels) * self.may_differ

    @property
    def cpu_milliseconds(self) -> float:
        """CPU time of one request."""
        return self.cpu_seconds / len(self.load.answers) * 1e3 if self.load.answers else 0.0

    def accuracy(self, predicted: NDArray[np.int64]) -> float:
        """The share of predictions, from 0 to 1, that are the labels."""
        return float((predicted == self.labels).mean())


def print_report(console: Console, result: DemoResult) -> None:
    """Pictures with predictions, figures, and one request's trace."""
    console.print()
    console.print(_pictures(result))
    console.print(_figures(result))
    for answer in result.load.failed[:3]:
        console.print(f"failed: status {answer.status} {answer.problem}", style="red", markup=False)
    console.print()
    if result.trace:
        console.print(Text("One request, from the gateway to the batch that it was in (milliseconds):", style="bold"))
        # Never wrapped: a bar that breaks over two lines says nothing.
        for line in render(result.trace, console.width):
            console.print(Text(line), no_wrap=True, overflow="ignore", crop=False)
        console.print()


def _pictures(result: DemoResult) -> RenderableType:
    """Some images beside what was predicted; a wrong one among them, if there is one."""
    grid = Table.grid(padding=(0, 2))
    shown = _choose_images(result)
    grid.add_row(*(Text("\n".join(picture(result.images[i][0]))) for i in shown))
    grid.add_row(*(_verdict(int(result.served[i]), int(result.labels[i])) for i in shown))
    return Group(Text("Held-out images, what was predicted, and the label:", style="bold"), grid, Text(""))


def _choose_images(result: DemoResult) -> list[int]:
    """The first images, the last of them giving way to the first wrong one."""
    shown = list(range(min(_SHOWN, len(result.labels))))
    wrong = np.flatnonzero(result.served != result.labels)
    if len(wrong) and shown and wrong[0] not in shown:
        shown[-1] = int(wrong[0])
    return shown


def _verdict(predicted: int, label: int) -> Text:
    right = predicted == label
    said = "none" if predicted < 0 else str(predicted)
    return Text(f"{said} {'✓' if right else '✗'} ({label})", style="green" if right else "red")


def _figures(result: DemoResult) -> Table:
    load = result.load
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    rows = (
        ("requests", f"{len(load.answers)} over {result.connections} connections, {len(load.failed)} failed"),
        ("accuracy", f"{result.accuracy(result.served):.2%} through the gateway"),
        ("", f"{result.accuracy(result.direct):.2%} by the model run directly; {result.differing} answers differ"),
        ("latency", f"p50 {load.percentile_milliseconds(50):.2f} ms, p99 {load.percentile_milliseconds(99):.2f} ms"),
        ("throughput", f"{load.requests_per_second:.0f} requests/s"),
        ("mean batch", f"{result.mean_batch:.2f} rows"),
        ("CPU", f"{result.cpu_milliseconds:.2f} ms a request, by the replica"),
        ("memory", f"{result.resident_bytes / 1e6:.0f} MB of a replica's server"),
    )
    for name, text in rows:
        table.add_row(Text(name, style="bold"), text)
    return table
