"""Serves the models of a user's manifests: of what does not start it is said why, while the rest serves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import monotonic

from rich.markup import escape

from penstock.api.meta import Manifest
from penstock_cli.objects.readiness import NotServing, url_if_ready, wait_until_ready
from penstock_cli.objects.resources import FIELD_MANAGER, kind_of, with_namespace
from penstock_cli.progress import StepDisplay
from penstock_operator.kinds import INFERENCE_DEPLOYMENT
from penstock_operator.runtime.cluster import Cluster, Key, NotFound, key_of

_READY_SECONDS = 240.0
_LOOK_SECONDS = 1.0


@dataclass
class ServedModels:
    """The deployments of one run."""

    cluster: Cluster
    steps: StepDisplay
    check: Callable[[], None]
    """Raises where the platform itself has failed."""
    seconds: float = _READY_SECONDS
    """To wait for the first to be Ready, and then for each next one."""
    deployments: list[Key] = field(default_factory=list)
    serving: dict[Key, str] = field(default_factory=dict)
    """Their URLs."""
    failed: dict[Key, NotServing] = field(default_factory=dict)
    """Why the others do not serve."""

    def apply(self, manifests: Iterable[Manifest]) -> None:
        """Apply all of them."""
        for manifest in manifests:
            kind = kind_of(manifest)
            applied = self.cluster.apply(kind, with_namespace(manifest, kind, "default"), FIELD_MANAGER)
            if kind is INFERENCE_DEPLOYMENT:
                self.deployments.append(key_of(applied))

    def wait(self) -> None:
        """Wait for each deployment: it serves, or it is known why it does not.

        They start together, so that while none becomes Ready all have waited for as long.

        Raises:
            Unavailable: the platform itself has failed.
        """
        applied = since = monotonic()
        for key in self.deployments:
            left = max(_LOOK_SECONDS, since + self.seconds - monotonic())
            try:
                with self.steps.step(f"Deploying {key}", f"{key} is Ready"):
                    ready = wait_until_ready(self.cluster, key, left, self.steps.say, self.check, applied=applied)
                since = monotonic()
                self.serving[key] = (ready.status.url or "").rstrip("/")
            except NotServing as error:
                self.failed[key] = error
            except NotFound as error:
                self.failed[key] = NotServing(error.reason, error.message)
        self._find_recovered()  # while others were waited for

    def tell(self) -> None:
        """Say where each model serves, and of the others why they do not."""
        for url in self.serving.values():
            self.steps.note(f"Serving {url}")
        for key, error in self.failed.items():
            self.steps.note(f"[red]✗[/red] {key} does not serve: {escape(f'{error.reason}: {error.message}')}")
        if self.failed:
            told = f"{len(self.serving)} of {len(self.deployments)} models serve."
            self.steps.note(f"{told} What failed is tried again, and is served once it can be.")

    def look(self) -> None:
        """Say of a model that failed that it serves now."""
        for key in self._find_recovered():
            self.steps.note(f"[green]✓[/green] {key} is Ready now. Serving {self.serving[key]}")

    def _find_recovered(self) -> list[Key]:
        found = {key: url_if_ready(self.cluster.get(INFERENCE_DEPLOYMENT, key)) for key in self.failed}
        for key, url in found.items():
            if url is not None:
                del self.failed[key]
                self.serving[key] = url
        return [key for key, url in found.items() if url is not None]
