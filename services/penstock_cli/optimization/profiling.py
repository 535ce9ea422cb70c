"""`penstock profile`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.errors import Invalid
from penstock_cli.optimization import options

if TYPE_CHECKING:
    from penstock.optimization.measurements import OperatorShare
    from penstock.optimization.profiling import ModelProfile

_BAR = 24
_ROWS = 12
_STYLES = {"likely": "green", "possible": "yellow", "unlikely": "dim"}


def profile(
    model: options.LocalModel,
    *,
    data: options.ProfileData = None,
    batch_size: options.BatchSize = 1,
    threads: options.EngineThreads = 1,
    shape: options.ProfileShapes = None,
    import_path: options.ImportPath = None,
    python_path: options.ProfilePythonPath = None,
    as_json: options.ProfileAsJson = False,
) -> None:
    """Show where a model's time goes on this machine, what limits it, and which steps could help.

    It runs the model under ONNX Runtime's profiler, and under torch's where the model is torch's. Nothing is searched or
    changed; `penstock optimize` does that.

    **Examples**

    `penstock profile model.onnx`

    `penstock profile model.pt2 --batch-size 8 --threads 2`

    `penstock profile encoder.onnx --shape input_ids=128 --shape attention_mask=128`

    `penstock profile weights.safetensors --import-path mymodel:network --python-path src --data samples/`

    `penstock profile model.onnx --json | jq .limits`
    """
    from penstock.optimization.variants import SourceRequest  # noqa: PLC0415 (only for this command)
    from penstock_optimizer.profiling.model import ProfileRequest, profile_model  # noqa: PLC0415 (loads the engines)

    source = SourceRequest(
        path=str(model),
        import_path=import_path,
        python_path=tuple(str(each.absolute()) for each in python_path or ()),
        example_shapes=dict(parse_shape(each) for each in shape or ()),
    )
    console, progress = Console(), Console(stderr=True)
    with progress.status("Starting") as status:
        found = profile_model(
            ProfileRequest(model=source, data=data, batch_size=batch_size, threads=threads),
            lambda line: status.update(f"{line} …"),
        )
    if as_json:
        console.print_json(found.model_dump_json())
        return
    show(found, console)


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """`image=3x224x224` to a name and the axes after the batch.

    Raises:
        Invalid: it is written otherwise.
    """
    name, equals, axes = text.partition("=")
    parts = axes.replace(",", "x").split("x")
    if not name or not equals or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise Invalid("InvalidShape", f"--shape {text}: write NAME=LENGTH or NAME=3x224x224, without the batch axis")
    return name, tuple(int(part) for part in parts)


def show(found: ModelProfile, console: Console) -> None:
    """Print a profile for people."""
    console.print(
        Text.assemble(
            (found.model, "bold"),
            f"  batch {found.batch_size}, {_pluralize(found.threads, 'thread')}, {found.hardware.cpu}",
        )
    )
    console.print(_table(f"{found.engine}: {found.milliseconds:.3f} ms a run", found.operators))
    if found.torch_milliseconds is not None:
        console.print(_table(f"torch eager fp32: {found.torch_milliseconds:.3f} ms a run", found.torch_operators))
    console.print(_limits(found))
    console.print(
        f"{found.gigaflops:.3g} GFLOP and {found.moved_megabytes:.3g} MB a run, at {_rate(found):.3g} GFLOP/s; this machine's"
        f" peaks: {found.peak.gigaflops:.0f} GFLOP/s, {found.peak.gigabytes_per_second:.0f} GB/s. {found.tiny_kernels} of"
        f" {found.kernels} kernels take less than 10 µs. Limits are estimates.",
        style="dim",
        highlight=False,
    )
    console.print(_advice(found))


def _rate(found: ModelProfile) -> float:
    return found.gigaflops / found.milliseconds * 1e3 if found.milliseconds else 0.0


def _pluralize(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _table(title: str, operators: Sequence[OperatorShare]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, title_style="bold")
    table.add_column("OPERATOR", no_wrap=True)
    table.add_column("CALLS", justify="right")
    table.add_column("MS", justify="right")
    table.add_column("SHARE", justify="right")
    table.add_column("", no_wrap=True)
    for each in operators[:_ROWS]:
        table.add_row(
            each.operator,
            str(each.calls),
            f"{each.milliseconds:.3f}",
            f"{each.share:.1%}",
            Text(bar(each.share), style="cyan"),
        )
    rest = operators[_ROWS:]
    if rest:
        share = sum(each.share for each in rest)
        time = sum(each.milliseconds for each in rest)
        calls = sum(each.calls for each in rest)
        table.add_row(f"{len(rest)} more", str(calls), f"{time:.3f}", f"{share:.1%}", Text(bar(share), style="dim"))
    return table


def bar(share: float) -> str:
    """A share of the full width, in eighths of a character."""
    eighths = round(max(0.0, min(1.0, share)) * _BAR * 8)
    return "█" * (eighths // 8) + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths % 8]


def _limits(found: ModelProfile) -> Text:
    text = Text.assemble("Limited by ", (found.limit.lower(), "bold"), ": ")
    shares = (("compute", found.limits.compute), ("memory", found.limits.memory), ("overhead", found.limits.overhead))
    text.append(", ".join(f"{name} {share:.0%}" for name, share in shares) + " of the time")
    return text


def _advice(found: ModelProfile) -> Table:
    table = Table(
        title="What could help", title_justify="left", box=None, pad_edge=False, title_style="bold", show_header=False
    )
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for each in found.advice:
        table.add_row(Text(each.likelihood, style=_STYLES.get(each.likelihood, "")), each.step, each.reason)
    return table
