"""What the operator's settings say of optimization Jobs."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

from penstock.api.pod_template import PodTemplate
from penstock.errors import Invalid
from penstock_operator.pods.trust import TrustedAuthorities
from penstock_operator.pool.raypods import ACCELERATOR_NODE_LABEL

DEFAULT_DISK: Final = "20Gi"
"""For models of a few gibibytes and their variants."""


@dataclass(frozen=True, slots=True)
class Egress:
    """A place that Jobs may connect to."""

    port: int
    cidr: str | None = None
    """A block of addresses."""
    namespace: str | None = None
    """The pods of a namespace."""


def parse_egress(text: str) -> Egress:
    """`10.1.0.0/16:443`, `[fd00::/8]:443` or `namespace/storage:9000`.

    Raises:
        Invalid: it is none of these.
    """
    place, _, port = text.rpartition(":")
    if port.isdecimal() and 0 < int(port) <= _LAST_PORT:
        if place.startswith("namespace/") and place.removeprefix("namespace/"):
            return Egress(int(port), namespace=place.removeprefix("namespace/"))
        try:
            return Egress(int(port), cidr=str(ipaddress.ip_network(place.removeprefix("[").removesuffix("]"))))
        except ValueError:
            pass  # told below, with what would be right
    raise Invalid(
        "InvalidSettings",
        f"{text} is no place to connect to: write a block of addresses or a namespace, and a port, such as 10.1.0.0/16:443, "
        "[fd00::/8]:443 or namespace/storage:9000",
    )


_LAST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class JobSettings:
    """What the operator's settings say of optimization Jobs."""

    store: str
    """fsspec URI of the artifact store."""
    signing_key: str
    """Path of the private key in PEM, where the Job is a process of this machine."""
    workspace: str = "/workspace"
    """Folder that keeps ledgers and built variants, as the Job sees it."""
    python: str = "python"
    """The interpreter; standalone: the operator's own."""
    image: str | None = None
    """None: the Job is a process of this machine."""
    gpu_image: str | None = None
    """Of Jobs that get NVIDIA's GPUs; None: as of the others."""
    architectures: tuple[str, ...] = ()
    """That the images were built for, by Kubernetes' names; none: any."""
    signing_key_secret: str | None = None
    """How names of Secrets end that hold a run's own key. The operator makes each, and the Job's driver has it as a
    variable; None: `signing_key` is there already, as it is standalone."""
    workspace_claim: str | None = None
    """A PersistentVolumeClaim for the workspace, so that a second run with the same key is free; None: an emptyDir."""
    model_volumes: tuple[tuple[str, str], ...] = ()
    """PersistentVolumeClaims with models and data, and where each is mounted, read-only: for `file://`."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables of the Job's process, such as an S3 endpoint."""
    environment_secret: str | None = None
    """A Secret whose keys become variables, such as the store's credentials."""
    shared_store: bool = False
    """Whether Jobs may have credentials that open other namespaces' parts of the store."""
    memory: str = "8Gi"
    """At least this much, for the search itself, which needs more than a replica: it trains and converts."""
    disk: str = DEFAULT_DISK
    """Of the node, for the workspace and temporary files: what a search is sure of."""
    cloud_identity: bool = False
    """Whether Jobs may reach the addresses at which clouds give pods an identity of their own."""
    template: PodTemplate | None = None
    """Laid over the Jobs' pods, under what the pools say themselves."""
    trusted: TrustedAuthorities | None = None
    """Private authorities that Jobs trust beside those of their image."""
    accelerator_label: str = ACCELERATOR_NODE_LABEL
    """Label of Kubernetes' nodes that holds their type of accelerator, where no worker group says how to find them."""
    accelerator_resource: str = "nvidia.com/gpu"
    """What Kubernetes calls accelerators, where no worker group says so."""
    sandbox: bool = True
    """Whether import paths and converters run in a sandbox within the Job. False: its pod is the sandbox, which the platform says,
    and no tenant: see docs/security.md for what the code of a model can then reach."""
    queue: str | None = None
    """Kueue's LocalQueue, of this name in each namespace, that Jobs wait in; None: they start at once. A run's own label
    `kueue.x-k8s.io/queue-name` goes first."""
    egress: tuple[Egress, ...] = ()
    """Where a Job's pod may connect to, beside DNS; empty: see `penstock_operator.optimization.job_network`."""
