"""`penstock bench`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from penstock.errors import Invalid
from penstock_cli.bench import options
from penstock_cli.bench.arrivals import ArrivalProcess
from penstock_cli.files import is_header, read_secret, read_text, secret_from_environment
from penstock_cli.objects.command import open_cluster
from penstock_cli.options import Context, FiguresAsJson, Kubeconfig, Namespace, StateDir, check_page, state_folder

if TYPE_CHECKING:
    from penstock_cli.bench.results import BenchDocument
    from penstock_operator.runtime.cluster import Cluster

_USUAL_CONNECTIONS = (1, 8, 64)
_TABLE_COLUMNS = 132
_INTERRUPTED = 130
_THIS_MACHINE = ("https://127.0.0.1:", "https://localhost:", "https://[::1]:")
"""URLs that `penstock run --tls` has a certificate for."""


def bench(
    target: options.Target,
    *,
    connections: options.Connections = None,
    rate: options.Rate = None,
    p99: options.P99 = None,
    arrivals: options.Arrivals = ArrivalProcess.POISSON,
    seconds: options.Seconds = 5.0,
    warmup: options.Warmup = 1.0,
    timeout: options.Timeout = 30.0,
    max_connections: options.MaxConnections = 1024,
    rows: options.Rows = 1,
    shape: options.Shapes = None,
    distinct: options.Distinct = 64,
    binary: options.Binary = False,
    body: options.Body = None,
    header: options.Headers = None,
    key_file: options.KeyFile = None,
    ca_file: options.AuthorityFile = None,
    as_json: FiguresAsJson = False,
    html: options.Html = None,
    seed: options.Seed = 0,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    state_dir: StateDir = None,
) -> None:
    """Load a model, and show its throughput and latencies as clients see them.

    Latency runs from when a request was due, so that a server that stalls cannot hide it (no coordinated omission). Requests are
    made up from the model's metadata unless you give one. The client is one process: where it uses most of a core, it says so.
    It ends with 1 where every request of a load failed.

    **Examples**

    `penstock bench digits`: 1, 8 and 64 connections

    `penstock bench http://gateway/vision/v2/models/resnet --rate 50,100,200 --seconds 20 --html resnet.html`

    `penstock bench digits --p99 20`: the highest rate that holds a p99 of 20 ms

    `penstock bench http://localhost:8000/v2/models/m --binary --rows 8 --json`
    """
    from penstock_cli.bench.inputs import InputOptions  # noqa: PLC0415 (NumPy and more, only for this command)
    from penstock_cli.bench.run import BenchOptions, run_bench  # noqa: PLC0415 (the same)
    from penstock_cli.optimization.profiling import parse_shape  # noqa: PLC0415 (the same)

    chosen = [name for name, value in (("--connections", connections), ("--rate", rate), ("--p99", p99)) if value]
    if len(chosen) > 1:
        raise typer.BadParameter(f"give one of --connections, --rate and --p99, not {' and '.join(chosen)}")
    _check(html, body, shape, rows, seconds=seconds, warmup=warmup, timeout=timeout, p99=p99)
    url = target
    if "://" not in target:
        if "/" in target:
            raise Invalid(
                "InvalidURL", f"{target}: write a URL with http:// or https:// before it, or a deployment's name"
            )
        with open_cluster(kubeconfig, context, state_dir, note_if_idle=True) as cluster:
            url = _url_of(cluster, target, namespace)
    asked = BenchOptions(
        url=url,
        connections=tuple(int(each) for each in _numbers("--connections", connections)) or _USUAL_CONNECTIONS,
        rates=_numbers("--rate", rate),
        p99_milliseconds=p99,
        arrivals=arrivals,
        seconds=seconds,
        warmup=warmup,
        timeout=timeout,
        most_connections=max_connections,
        inputs=InputOptions(rows, dict(parse_shape(each) for each in shape or ()), distinct, binary, seed),
        body=_own_body(body) if body else None,
        headers=dict(_header(each) for each in header or ()),
        key=_key(key_file),
        ca_file=ca_file or _own_authority(url, state_dir),
        seed=seed,
    )
    document = run_bench(asked)
    _show(document, as_json=as_json, html=html)
    if document.interrupted:
        raise typer.Exit(_INTERRUPTED)
    if document.failed_loads:
        raise typer.Exit(1)


def _check(html: Path | None, body: Path | None, shape: list[str] | None, rows: int, **numbers: float | None) -> None:
    """See before anything is measured that nothing will be lost, or was said in vain."""
    for name, value in numbers.items():
        if value is not None and not math.isfinite(value):
            raise Invalid("InvalidOption", f"--{name} {value}: write a number")
    check_page(html)
    in_vain = "--shape" if shape else "--rows" if rows > 1 else ""
    if body is not None and in_vain:
        raise Invalid(
            "InvalidOption", f"{in_vain} is of requests that are made up, and --body is sent as it is: give one of them"
        )


def _numbers(option: str, text: str | None) -> tuple[float, ...]:
    try:
        found = tuple(float(each) for each in (text or "").split(",") if each.strip())
    except ValueError:
        found = (0.0,)
    whole = option != "--connections" or all(each.is_integer() and each <= 16384 for each in found)  # noqa: PLR2004 (as above)
    if not whole or not all(0 < each < float("inf") for each in found):
        raise Invalid("InvalidOption", f"{option} {text}: write numbers above 0 with commas between, such as 1,8,64")
    return found


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or not is_header(text):
        raise Invalid("InvalidOption", f"--header {text!r}: write `NAME: VALUE`, in ASCII")
    return name.strip(), value.strip()


def _own_body(file: Path) -> bytes:
    text = read_text(file)
    try:
        json.loads(text)
    except ValueError as error:
        raise Invalid("InvalidBody", f"--body {file}: not JSON: {error}") from None
    return text.encode()


def _key(file: Path | None) -> str | None:
    return read_secret(file, "--key-file") if file else secret_from_environment("PENSTOCK_API_KEY")


def _own_authority(url: str, state_dir: Path | None) -> Path | None:
    """Whose certificate `penstock run --tls` has, where that is what the URL is of."""
    from penstock_cli.standalone.certificate import AUTHORITY_FILE  # noqa: PLC0415 (only for this command)

    own = state_folder(state_dir).tls / AUTHORITY_FILE
    return own if url.startswith(_THIS_MACHINE) and own.is_file() else None


def _url_of(cluster: Cluster, name: str, namespace: str) -> str:
    """Where a deployment serves.

    Raises:
        Invalid: there is none, or it does not serve.
    """
    from penstock_cli.objects.readiness import url_if_ready  # noqa: PLC0415 (loads the API types)
    from penstock_operator.kinds import INFERENCE_DEPLOYMENT  # noqa: PLC0415 (the same)
    from penstock_operator.runtime.cluster import Key  # noqa: PLC0415 (the same)

    manifest = cluster.get(INFERENCE_DEPLOYMENT, Key(namespace, name))
    if manifest is None:
        raise Invalid("NotFound", f"there is no InferenceDeployment {namespace}/{name}: see `penstock get -A`")
    url = url_if_ready(manifest)
    if not url:
        raise Invalid(
            "NotReady", f"{namespace}/{name} is not Ready: see `penstock describe infdep {name} -n {namespace}`"
        )
    return url


def _show(document: BenchDocument, *, as_json: bool, html: Path | None) -> None:
    from rich.console import Console  # noqa: PLC0415 (only for this command)

    from penstock_cli.bench.results import HEADINGS, render, rows  # noqa: PLC0415 (the same)
    from penstock_cli.tables import print_figures  # noqa: PLC0415 (the same)

    if html is not None:
        html.write_text(render(document), encoding="utf-8")
    console = Console()
    if as_json:
        console.print_json(document.model_dump_json())
        return
    print_figures(console, HEADINGS, rows(document.loads), words=1, columns=_TABLE_COLUMNS)
    for line in (document.found, *document.warnings, f"Page: {html}" if html else ""):
        if line:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
