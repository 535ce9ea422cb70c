"""`penstock run`: the whole platform on this machine."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from rich.console import Console
from rich.markup import escape

from penstock.api.meta import Manifest
from penstock.errors import Unavailable
from penstock.serving.settings import DEFAULT_MAX_BODY_BYTES
from penstock.telemetry.spans import SpanContext, new_span_id, new_trace_id
from penstock_cli.demo import digits
from penstock_cli.demo.sequence import Demo, DemoPlace, reset
from penstock_cli.invocation import command_as_typed
from penstock_cli.objects.readiness import forget_readiness
from penstock_cli.progress import StepDisplay
from penstock_cli.serving import ServedModels
from penstock_cli.standalone.certificate import AUTHORITY_FILE
from penstock_cli.standalone.declarations import POOL, declare_pool, declare_profiles
from penstock_cli.standalone.gateway import GatewayProcess
from penstock_cli.standalone.ray_head import RayAccess, find_running_ray, open_ray
from penstock_cli.standalone.stack import Stack, StackSettings
from penstock_cli.standalone.state import StateFolder, StateLock
from penstock_cli.target import open_embedded
from penstock_cli.validation.manifests import load_accepted, refuse
from penstock_operator.kinds import INFERENCE_DEPLOYMENT, SERVING_POOL
from penstock_operator.runtime.cluster import Cluster, Key
from penstock_optimizer.artifact import digits_artifact

_WATCH_SECONDS = 1.0
_GONE_SECONDS = 30.0
_GONE_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What `penstock run` was asked for."""

    files: tuple[str, ...]
    """Manifests to apply; none: the digits demo."""
    once: bool
    port: int
    state: StateFolder
    cache: Path
    ray: str
    """`auto`, `new`, or a dashboard's URL."""
    ray_token: str | None = None
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    """Of a request."""
    tls: bool = False
    """Whether clients speak TLS."""
    replica_tls: bool = False
    """Whether gateway, replicas and operator speak TLS to each other."""


def run(settings: RunSettings, console: Console) -> int:
    """Run until Ctrl-C, or with `once` until the report.

    Returns:
        The exit status: 0, or 1 where an answer of the demo is missing or differs from the model's own, or where a model of
        the files does not serve at the end.

    Raises:
        Conflict: the state folder is in use.
        Invalid: a manifest would be refused.
        Unavailable: a part of the platform does not start, or no deployment becomes Ready.
    """
    documents = load_accepted(settings.files) if settings.files else []
    settings.state.create()
    with StateLock(settings.state):
        if documents:
            with closing(open_embedded(settings.state)) as cluster:
                refuse(cluster, documents, passed_over=(POOL,))
        steps = StepDisplay(console)
        ray = _ray(settings)
        try:
            with Stack(
                StackSettings(
                    state=settings.state,
                    port=settings.port,
                    cache=settings.cache,
                    max_body_bytes=settings.max_body_bytes,
                    tls=settings.tls,
                    replica_tls=settings.replica_tls,
                )
            ) as stack:
                session = _Session(settings, console, steps, stack, ray)
                status = session.serve([each.manifest for each in documents]) if documents else session.demo()
        except KeyboardInterrupt:
            steps.note(farewell(ray))
            raise
        if not settings.once:
            steps.note(farewell(ray))
        return status


def farewell(ray: RayAccess | None) -> str:
    """The last words of a run whose processes have all ended.

    Args:
        ray: the Ray that was there before; None where the run had its own.
    """
    if ray is None:
        return "Stopped; nothing is left running."
    return f"Stopped; nothing of this run is left. The Ray at {ray.url} stays up."


def request_hints(
    infer_url: str, body: Path, command: str, traceparent: str | None, authority: Path | None = None
) -> list[str]:
    """Lines that say how to send a request oneself, and how to see where its time went.

    Args:
        infer_url: where requests go.
        body: file with one.
        command: the command line's name, as the user can type it.
        traceparent: a W3C trace context that asks for a trace; None where traces are not collected here.
        authority: file that a client needs to trust the gateway's certificate; None: there is no TLS.
    """
    trusting = f" --cacert {authority}" if authority is not None else ""
    lines = ["Try it from another terminal:", f"  curl -s{trusting} {infer_url} -d @{body}"]
    if traceparent is None:
        return lines
    header = f"-H 'traceparent: {traceparent}'"
    return [*lines, f"To keep its trace, add {header}; then `{command} trace --last` shows it."]


def _ray(settings: RunSettings) -> RayAccess | None:
    match settings.ray:
        case "new":
            return None
        case "auto":
            return find_running_ray()
        case url:
            return open_ray(url, settings.ray_token)


class _Session:
    """One run, once its folder is locked and its context entered."""

    def __init__(
        self, settings: RunSettings, console: Console, steps: StepDisplay, stack: Stack, ray: RayAccess | None
    ) -> None:
        self._settings = settings
        self._console = console
        self._steps = steps
        self._stack = stack
        self._ray = ray
        self._deployments: list[Key] = []

    def demo(self) -> int:
        """Train, serve, measure, optimize, measure again, report."""
        artifact = digits_artifact(self._settings.cache)
        trained = None if artifact.exists() else self._stack.start_training()
        gateway, cluster = self._start_platform(lambda cluster: reset(cluster, artifact))
        try:
            if trained is None:
                self._steps.note(f"[green]✓[/green] The digits model was trained before: {artifact.root}")
            else:
                with self._steps.step("Training a CNN on handwritten digits and exporting it to ONNX"):
                    trained()
            models = self._deploy(cluster, [digits.manifest(artifact, optimized=False)])
            self._require_one_served(models)
            (url,) = models.serving.values()
            demo = Demo(
                DemoPlace(cluster, self._settings.state, gateway, f"{url}/infer", artifact, self._stack),
                self._console,
                self._steps,
            )
            try:
                passed = demo.run()
            except Unavailable as error:
                raise Unavailable(error.reason, f"{error.message}\n{self._logs()}") from error
            self._report_ready(f"{url}/infer", digits.request_file(self._settings.state, artifact))
            return 0 if passed else 1
        finally:
            self._leave(cluster)

    def serve(self, manifests: list[Manifest]) -> int:
        """Apply the user's manifests and serve them: those models that can be, where some cannot."""
        _, cluster = self._start_platform(lambda _: None)
        try:
            models = self._deploy(cluster, manifests)
            self._require_one_served(models)
            models.tell()
            if models.failed:
                self._steps.note(escape(self._logs()))
            if not self._settings.once:
                self._serve_until_interrupted(models.look)
        finally:
            self._leave(cluster)
        return 1 if models.failed else 0

    def _start_platform(self, prepare: Callable[[Cluster], None]) -> tuple[GatewayProcess, Cluster]:
        """Start all parts at once, then wait for each. `prepare` is called before the operator sees what is stored."""
        stack = self._stack
        head = stack.start_ray() if self._ray is None else None
        gateway = stack.start_gateway()
        cluster = open_embedded(self._settings.state)
        # Both are of a former run, whose Ray is gone. A pool's address cannot be changed, since a cluster's Ray stays.
        cluster.delete(SERVING_POOL, POOL)
        forget_readiness(cluster)
        prepare(cluster)
        with self._steps.step("Starting the gateway"):
            gateway.wait_ready()
        if gateway.port != self._settings.port:
            self._steps.note(f"Port {self._settings.port} is taken; the gateway uses {gateway.port}.")
        operator = stack.start_operator(gateway)
        with self._steps.step("Starting the operator"):
            operator.wait_ready()
        if head is not None:
            with self._steps.step("Starting Ray"):
                head.wait_ready()
        access = head.access if head is not None else self._ray
        assert access is not None  # noqa: S101 (one of the two is there)
        if head is None:
            self._steps.note(f"[green]✓[/green] Using the Ray that is up at {access.url}")
        declare_pool(cluster, access)
        declare_profiles(cluster)
        return gateway, cluster

    def _deploy(self, cluster: Cluster, manifests: list[Manifest]) -> ServedModels:
        """Apply, and wait for each deployment."""
        models = ServedModels(cluster, self._steps, self._stack.check, deployments=self._deployments)
        models.apply(manifests)
        models.wait()
        return models

    def _require_one_served(self, models: ServedModels) -> None:
        """Raises `Unavailable` where there are deployments, and none of them serves."""
        if models.failed and not models.serving:
            first = next(iter(models.failed.values()))
            told = [error.message for error in models.failed.values()]
            if len(told) > 1:
                told = [f"{key}: {error.message}" for key, error in models.failed.items()]
            raise Unavailable(first.reason, "\n".join([*told, self._logs()]))

    def _logs(self) -> str:
        state = self._settings.state
        return f"Logs are in {state.logs}; those of searches in {state.jobs}"

    def _leave(self, cluster: Cluster) -> None:
        """Before all ends: a Ray that is not ours goes on, so take our deployments off it."""
        try:
            if self._ray is not None:
                for key in self._deployments:
                    cluster.delete(INFERENCE_DEPLOYMENT, key)
                self._wait_until_gone(cluster)
        finally:
            cluster.close()

    def _wait_until_gone(self, cluster: Cluster) -> None:
        deadline = monotonic() + _GONE_SECONDS
        while left := [key for key in self._deployments if cluster.get(INFERENCE_DEPLOYMENT, key) is not None]:
            if monotonic() > deadline:
                names = ", ".join(map(str, left))
                self._steps.note(f"[yellow]{names} could not be taken off Ray in {_GONE_SECONDS:.0f} s.[/yellow]")
                return
            sleep(_GONE_POLL_SECONDS)

    def _report_ready(self, infer: str, body: Path) -> None:
        """Serve on, unless asked to end."""
        self._steps.note(f"Ready and measured after [bold]{self._steps.seconds:.1f} s[/bold].")
        if self._settings.once:
            return
        asked = SpanContext(new_trace_id(), new_span_id(), sampled=True).traceparent()
        traceparent = asked if self._stack.collects_traces else None
        authority = self._settings.state.tls / AUTHORITY_FILE if self._settings.tls else None
        for line in request_hints(infer, body, command_as_typed(), traceparent, authority):
            # Not wrapped by us: a terminal's own wrapping can be pasted, ours could not.
            self._console.print(line, soft_wrap=True, highlight=False, markup=False)
        self._serve_until_interrupted()

    def _serve_until_interrupted(self, look: Callable[[], None] = lambda: None) -> None:
        """Serve on; `look` is called every now and then."""
        name = escape(command_as_typed())
        self._steps.note(
            f"Ctrl-C ends it. `{name} get infdep`, `{name} describe infdep` and `{name} trace` tell how it goes."
        )
        try:
            while True:
                sleep(_WATCH_SECONDS)
                self._stack.check()
                look()
        except KeyboardInterrupt:
            # The clean-up must not be interrupted by a second, impatient Ctrl-C on its way to the stack.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._steps.note("Stopping.")
