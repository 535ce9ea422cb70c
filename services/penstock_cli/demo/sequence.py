"""The digits demo from the first request to the table of before and after."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from rich.console import Console

from penstock.api.optimization import OptimizationRun
from penstock.names import MODEL_LABEL
from penstock.optimization.report import SearchVerdict
from penstock_cli.demo import digits
from penstock_cli.demo.comparison import print_comparison
from penstock_cli.demo.load import request_body
from penstock_cli.demo.optimization import send_meanwhile, wait_for_verdict, wait_until_optimized
from penstock_cli.demo.report import DemoResult, print_report
from penstock_cli.objects.resources import FIELD_MANAGER
from penstock_cli.progress import StepDisplay
from penstock_cli.standalone.gateway import GatewayProcess
from penstock_cli.standalone.stack import Stack
from penstock_cli.standalone.state import StateFolder
from penstock_operator.kinds import INFERENCE_DEPLOYMENT, OPTIMIZATION_RUN
from penstock_operator.runtime.cluster import Cluster, Key, key_of
from penstock_optimizer.artifact import DigitsArtifact

DIGITS: Final = Key("default", digits.NAME)
_VERDICT_SECONDS: Final = 900.0
_EXCHANGE_SECONDS: Final = 120.0
_MAY_DIFFER: Final = 0.01


def reset(cluster: Cluster, artifact: DigitsArtifact) -> None:
    """Take the profile off what a former demo left, so that this one shows it again; what was measured is kept."""
    if cluster.get(INFERENCE_DEPLOYMENT, DIGITS) is not None:
        cluster.apply(INFERENCE_DEPLOYMENT, digits.manifest(artifact, optimized=False), FIELD_MANAGER)
    for manifest in cluster.list(OPTIMIZATION_RUN, DIGITS.namespace).items:
        if (manifest["metadata"].get("labels") or {}).get(MODEL_LABEL) == DIGITS.name:
            cluster.delete(OPTIMIZATION_RUN, key_of(manifest))


@dataclass(frozen=True, slots=True)
class DemoPlace:
    """What the demo works with."""

    cluster: Cluster
    state: StateFolder
    gateway: GatewayProcess
    url: str
    """Where requests go."""
    artifact: DigitsArtifact
    stack: Stack


class Demo:
    """The demo, once the model serves as it is.

    Args:
        place: what it works with.
        console: for its tables.
        steps: for its progress.
    """

    def __init__(self, place: DemoPlace, console: Console, steps: StepDisplay) -> None:
        self._place = place
        self._console = console
        self._steps = steps

    def run(self) -> bool:
        """Measure, optimize, and measure again where the optimized model was accepted.

        Returns:
            Whether every answer came and was the served model's own.

        Raises:
            Unavailable: the search could not be run, or the optimized model does not serve.
        """
        artifact, state = self._place.artifact, self._place.state
        traces = state.traces if self._place.stack.collects_traces else None
        before = self._measure("Sending the held-out images as HTTP requests", artifact.model_folder, None, traces)
        print_report(self._console, before)
        run = self._optimize()
        status = run.status
        if status.verdict != SearchVerdict.ACCEPTED or status.artifact is None:
            self._steps.note("The model serves on as it is:")
            self._console.print(f"  {status.summary}", highlight=False, markup=False)
            self._say_report(run)
            return before.passed
        failed, revision = self._exchange()
        folder = Path(unquote(urlsplit(status.artifact.storage_uri).path))
        after = self._measure("Sending the same images to the optimized model", folder, revision, None)
        after = replace(after, may_differ=_MAY_DIFFER)
        print_comparison(self._console, before, after, run)
        self._say_report(run)
        return before.passed and after.passed and not failed

    def _measure(self, doing: str, folder: Path, revision: str | None, traces: Path | None) -> DemoResult:
        place = self._place
        secret = place.state.secret(place.state.gateway_secret_file)
        served = digits.Served(place.url, place.gateway.agent_url, secret, revision, folder, place.gateway.trust)
        with self._steps.step(doing):
            return digits.measure(served, place.artifact, traces)

    def _optimize(self) -> OptimizationRun:
        """Name the profile in the deployment, and wait for the verdict.

        Only now: a search beside the first measurement would have slowed down what is called before.
        """
        place = self._place
        manifest = digits.manifest(place.artifact, optimized=True)
        profile = manifest["spec"]["optimizationProfileRef"]["name"]
        place.cluster.apply(INFERENCE_DEPLOYMENT, manifest, FIELD_MANAGER)
        with self._steps.step(f"Optimizing by the profile {profile}, while the model serves"):
            run = wait_for_verdict(place.cluster, DIGITS, _VERDICT_SECONDS, self._steps.say, place.stack.check)
        self._steps.note(f"[bold]{run.status.verdict}[/bold]")
        return run

    def _exchange(self) -> tuple[int, str | None]:
        """Wait until the optimized revision serves; how many requests failed meanwhile, and the revision."""
        place = self._place
        images = place.artifact.test_images().images
        body = request_body(place.artifact.manifest().signature.inputs[0], images[0])
        with (
            self._steps.step("Exchanging the model under requests"),
            send_meanwhile(place.url, body, place.gateway.trust) as exchange,
        ):
            ready = wait_until_optimized(place.cluster, DIGITS, _EXCHANGE_SECONDS, self._steps.say, place.stack.check)
        self._steps.note(f"  {len(exchange.answers)} requests meanwhile, {exchange.failed} failed")
        return exchange.failed, ready.status.active_revision

    def _say_report(self, run: OptimizationRun) -> None:
        if run.status.report_uri is not None:
            page = f"{run.status.report_uri.rstrip('/')}/report.html"
            self._console.print(f"Report: {page}", highlight=False, markup=False, soft_wrap=True)
