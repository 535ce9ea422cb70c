"""Where the test cluster keeps what, and which addresses its parts have."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.binary import cache_directory

CONTROL_ADDRESS = "10.250.0.1"
"""Of the API server and the DNS server, in the cluster's own network namespace."""
API_PORT = 6443
NODES = "10.250.0.0/24"
SERVICES = "10.96.0.0/16"
PODS = "10.244.0.0/16"
WATCHER = "penstock-test-watcher"


@dataclass(frozen=True)
class Node:
    """One node: a mount, network and host-name namespace of its own."""

    index: int

    @property
    def name(self) -> str:
        """As Kubernetes knows it."""
        return f"node{self.index}"

    @property
    def address(self) -> str:
        """Its address in the cluster's network."""
        return f"10.250.0.{10 + self.index}"

    @property
    def pods(self) -> str:
        """The range of its pods' addresses."""
        return f"10.244.{self.index}.0/24"


@dataclass(frozen=True)
class Layout:
    """The folders of one test cluster: `state` lasts as long as it runs, `cache` keeps imported images for the next.

    Attributes:
        name: tells clusters of one user apart; PENSTOCK_CLUSTER_NAME by default.
        node_count: how many nodes it has.
    """

    name: str = field(default_factory=lambda: os.environ.get("PENSTOCK_CLUSTER_NAME", "default"))
    node_count: int = 2

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes."""
        return tuple(Node(index) for index in range(self.node_count))

    @property
    def state(self) -> Path:
        """`$XDG_STATE_HOME/penstock/cluster/NAME`, in `~/.local/state` by default."""
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        return base / "penstock" / "cluster" / self.name

    @property
    def cache(self) -> Path:
        """Outlives the cluster."""
        return cache_directory() / "cluster" / self.name

    def image_store(self, node: Node) -> Path:
        """Containerd's root: images stay there from one boot to the next."""
        return self.cache / node.name / "containerd"

    @property
    def lock(self) -> Path:
        """Held by the cluster's keeper for as long as it lives; the keeper's process id is its content."""
        return self.cache / "lock"

    @property
    def cgroup(self) -> str:
        """The control group, in each hierarchy, under which all pods run."""
        return f"penstock-test-{self.name}"

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.state / "pki"

    @property
    def configuration(self) -> Path:
        """The components' configuration files."""
        return self.state / "configuration"

    @property
    def logs(self) -> Path:
        """A log for each component."""
        return self.state / "logs"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, for the host: the API server is forwarded to a port on loopback."""
        return self.state / "kubeconfig"

    @property
    def init_pid(self) -> Path:
        """A file with the process id, on the host, of the namespaces' first process."""
        return self.state / "init.pid"

    @property
    def up(self) -> Path:
        """A file that is there once all components have been started."""
        return self.state / "up"

    @property
    def installed(self) -> Path:
        """A file that is there once what every cluster has is installed in it."""
        return self.state / "installed"

    def node_pid(self, node: Node) -> Path:
        """A file with the id, inside the cluster's PID namespace, of the process whose namespaces are the node's."""
        return self.state / f"{node.name}.pid"

    def kubelet(self, node: Node) -> Path:
        """The kubelet's folder: volumes and what it remembers."""
        return self.state / node.name / "kubelet"
