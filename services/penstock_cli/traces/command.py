"""`penstock trace`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from penstock_cli.options import state_folder

_LISTED = 20


def trace(
    trace_id: Annotated[
        str | None, typer.Argument(help="The trace's id, or how it begins. None: see the options.", show_default=False)
    ] = None,
    *,
    last: Annotated[bool, typer.Option("--last", help="The last one; so it is with no option.")] = False,
    slowest: Annotated[bool, typer.Option("--slowest", help="The slowest one.")] = False,
    start: Annotated[
        bool, typer.Option("--start", help="The last start of a model, from apply to first answer.")
    ] = False,
    listing: Annotated[bool, typer.Option("--list", help=f"List the last {_LISTED} instead.")] = False,
    file: Annotated[
        Path | None, typer.Option(help="OTLP JSON lines, as the OpenTelemetry Collector's file exporter writes.")
    ] = None,
    state_dir: Annotated[Path | None, typer.Option(help="State folder of `penstock run`.")] = None,
) -> None:
    """Show where one request's time went, or a model's start's, as a waterfall.

    The batch that a request was part of is a trace of its own; it is shown under the request's execute span.

    **Examples**

    `penstock trace --slowest`

    `penstock trace 4bf92f35`

    `penstock trace --start`

    `penstock trace --file traces.jsonl --list`
    """
    from penstock_cli.traces import reading as traces  # noqa: PLC0415 (the same)
    from penstock_cli.traces.waterfall import summaries  # noqa: PLC0415 (only for this command)

    if sum((trace_id is not None, last, slowest, start, listing)) > 1:
        raise typer.BadParameter("give one of TRACE_ID, --last, --slowest, --start and --list")
    path = file or state_folder(state_dir).traces
    spans = traces.load_spans(path)
    console = Console()
    if listing:
        lines = [traces.summary_line(summary) for summary in summaries(spans)[-_LISTED:]]
    else:
        lines = traces.draw_trace(
            spans, traces.choose_trace(spans, trace_id, slowest=slowest, start=start), console.width
        )
    for line in lines:
        console.print(Text(line), soft_wrap=True)
