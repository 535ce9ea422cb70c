"""Which API a command speaks to: a Kubernetes cluster, or the standalone platform on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import Unavailable
from penstock_cli.standalone.state import StateFolder
from penstock_cli.validation.admission import default_spec, validate
from penstock_operator.runtime.cluster import Cluster, Manifest
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster

_SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


@dataclass(frozen=True, slots=True)
class ClusterTarget:
    """What the user said of where to look."""

    kubeconfig: Path | None = None
    context: str | None = None
    state: StateFolder | None = None
    """Named explicitly: then no cluster is asked."""

    @property
    def is_cluster(self) -> bool:
        """Whether a Kubernetes cluster is meant."""
        if self.state is not None:
            return False
        named = self.kubeconfig is not None or self.context is not None or bool(os.environ.get("KUBECONFIG"))
        return named or _SERVICE_ACCOUNT_TOKEN.is_file()


def connect(target: ClusterTarget, standalone: StateFolder) -> Cluster:
    """Open the API.

    Args:
        target: what the user said.
        standalone: the state folder to use where no cluster is named.

    Raises:
        Unavailable: there is neither, or the kubeconfig cannot be used.
    """
    if target.is_cluster:
        # The Kubernetes client takes a second to import, which other commands need not wait for.
        from penstock_operator.runtime.cluster.kubernetes import KubernetesCluster  # noqa: PLC0415

        return KubernetesCluster.connect(target.kubeconfig, target.context)
    folder = target.state or standalone
    if not folder.store.is_file():
        raise Unavailable(
            "NoCluster",
            "no cluster is named (by --kubeconfig, --context or KUBECONFIG) and no standalone Penstock was ever "
            f"started in {folder.root}. Start one: penstock run",
        )
    return open_embedded(folder)


def open_embedded(folder: StateFolder) -> Cluster:
    """The embedded store of a state folder; made at the first call."""
    return EmbeddedCluster(folder.store, admit=_admit, fill_in=default_spec)


def _admit(manifest: Manifest, old: Manifest | None) -> list[str]:
    """What a real API server would refuse."""
    return [str(problem) for problem in validate(manifest, old)]
