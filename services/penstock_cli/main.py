"""The command line's entry point. Heavy imports wait until a command needs them, so that `--help` is quick."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from penstock.errors import PenstockError
from penstock_cli.bench.command import bench
from penstock_cli.cost.command import cost
from penstock_cli.files import read_secret
from penstock_cli.keys import app as keys
from penstock_cli.objects.command import apply, delete, get
from penstock_cli.objects.describing import describe
from penstock_cli.objects.showing import complain
from penstock_cli.optimization.command import optimize
from penstock_cli.optimization.profiling import profile
from penstock_cli.options import state_folder
from penstock_cli.replay.command import replay
from penstock_cli.rollouts.command import app as rollouts
from penstock_cli.standalone.state import default_cache_folder
from penstock_cli.traces.command import trace
from penstock_cli.validation.command import validate
from penstock_cli.versions import version
from penstock_runtime.trust import trust_named_authorities

_DEBUG_VARIABLE = "PENSTOCK_DEBUG"
_INTERRUPTED = 130
_USUAL_KUBECONFIG = Path.home() / ".kube" / "config"

app = typer.Typer(
    help="Serve models on Ray: describe a deployment, get measured and traced serving.\n\n"
    "Start with `penstock run`, which needs no cluster. With one (`--kubeconfig`, `--context` or KUBECONFIG), the same "
    "commands speak to it; without, to the platform that `penstock run` started on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    apply, get, delete, describe, validate, profile, optimize, bench, replay, cost, trace, version,
):  # fmt: skip
    app.command()(command)
app.add_typer(keys, name="key")
app.add_typer(rollouts, name="rollout")


@app.command()
def run(
    files: Annotated[
        list[str] | None, typer.Argument(help="Manifests to serve. None: the digits demo.", show_default=False)
    ] = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="End after the report instead of serving on.")] = False,
    port: Annotated[
        int, typer.Option(help="The gateway's port; the next free one if it is taken.", min=1, max=65535)
    ] = 8080,
    ray: Annotated[
        str,
        typer.Option(help="`auto`: the Ray that is up on this machine, else a new one; `new`; or a dashboard's URL."),
    ] = "auto",
    ray_token_file: Annotated[
        Path | None, typer.Option(help="File with the token of the Ray at that URL.", exists=True, dir_okay=False)
    ] = None,
    max_body_bytes: Annotated[int, typer.Option(help="A request with a larger body gets 413.", min=1)] = 64
    * 1024
    * 1024,
    tls: Annotated[
        bool, typer.Option("--tls", help="Clients speak TLS, by a certificate for localhost that is made anew.")
    ] = False,
    replica_tls: Annotated[
        bool, typer.Option("--replica-tls", help="Gateway, replicas and operator speak TLS to each other.")
    ] = False,
    state_dir: Annotated[
        Path | None, typer.Option(help="Where everything is kept. Default: the user's state folder.", file_okay=False)
    ] = None,
) -> None:
    """Run the whole platform on this machine, with no cluster.

    It starts Ray, the gateway and the operator, serves, and ends all of them on Ctrl-C. Without files it trains a
    small model on handwritten digits, serves it, sends it images that it never saw, and shows what came back.

    **Examples**

    `penstock run`: the demo, then serve until Ctrl-C

    `penstock run --once`: the demo; exit 0 only if every answer is the model's own

    `penstock run my-model.yaml --port 9000`: serve your own

    `penstock run --once models/`: exit 0 only if every model starts
    """
    from penstock_cli.run import RunSettings  # noqa: PLC0415 (NumPy and more, only for this command)
    from penstock_cli.run import run as run_platform  # noqa: PLC0415 (the same)

    settings = RunSettings(
        files=tuple(files or ()),
        once=once,
        port=port,
        state=state_folder(state_dir),
        cache=default_cache_folder(),
        ray=ray,
        max_body_bytes=max_body_bytes,
        tls=tls,
        replica_tls=replica_tls,
        ray_token=read_secret(ray_token_file, "--ray-token-file") if ray_token_file else None,
    )
    raise typer.Exit(run_platform(settings, Console()))


def main() -> None:
    """Run the command line, under the name by which it was called."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal or a pipe without our letters gets the rest
    plugin = Path(sys.argv[0]).name.startswith("kubectl-penstock")
    name = "kubectl penstock" if plugin else "penstock"
    if plugin and _USUAL_KUBECONFIG.is_file():
        # Whoever says kubectl means the cluster that kubectl speaks to.
        os.environ.setdefault("KUBECONFIG", str(_USUAL_KUBECONFIG))
    trust_named_authorities(os.environ)
    try:
        app(prog_name=name)
    except BrokenPipeError:
        # The reader (head, less) has seen enough. What is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (PenstockError, OSError) as error:
        if os.environ.get(_DEBUG_VARIABLE) == "1":
            raise
        complain(error.message if isinstance(error, PenstockError) else _tell(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _tell(error: OSError) -> str:
    """What the system refused, and of which file."""
    about = error.strerror or str(error)
    return f"{error.filename}: {about}" if error.filename is not None else about


if __name__ == "__main__":
    main()
