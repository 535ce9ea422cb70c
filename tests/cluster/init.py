"""The first process of the test cluster's namespaces: its network, its control plane and its nodes.

When it dies, the kernel ends everything in its PID namespace; mounts, links and rules go with their namespaces.

    python -m tests.cluster.init PLAN     where PLAN is a file that `Plan.write` made
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.cluster.configuration import Binaries, Component, control_plane
from tests.cluster.layout import CONTROL_ADDRESS, Layout, Node
from tests.cluster.mounts import private_view
from tests.cluster.supervise import Supervisor, python, until


@dataclass(frozen=True)
class Plan:
    """What to run."""

    name: str
    node_count: int
    kubernetes: str
    coredns: str
    policies: str

    @property
    def layout(self) -> Layout:
        """Its folders."""
        return Layout(self.name, self.node_count)

    @property
    def binaries(self) -> Binaries:
        """Its programs."""
        return Binaries(Path(self.kubernetes), Path(self.coredns), Path(self.policies))

    def write(self, path: Path) -> None:
        """Write it to a file."""
        path.write_text(json.dumps(asdict(self)))

    @staticmethod
    def read(path: Path) -> Plan:
        """Read what `write` wrote."""
        return Plan(**json.loads(path.read_text()))


def ip(*arguments: str) -> None:
    """Run ip(8)."""
    subprocess.run(["ip", *arguments], check=True, timeout=30)


def main() -> None:
    """Bring everything up, say so by a file, and keep it running."""
    path = Path(sys.argv[1])
    plan = Plan.read(path)
    layout = plan.layout
    private_view(layout)
    etcd = layout.state / "etcd"
    etcd.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", str(etcd)], check=True, timeout=30)
    subprocess.run(["hostname", "control"], check=True, timeout=30)
    ip("link", "set", "lo", "up")
    ip("address", "add", f"{CONTROL_ADDRESS}/32", "dev", "lo")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    supervisor = Supervisor(layout.logs)
    nodes = [Component(node.name, _in_own_namespaces(path, node)) for node in layout.nodes]
    supervisor.start(*nodes, *control_plane(layout, plan.binaries))
    for node in layout.nodes:
        _connect(layout, node)
    config = layout.configuration / "admin.kubeconfig"
    ready = [plan.kubernetes, "kubectl", "--kubeconfig", str(config), "get", "--raw", "/readyz"]
    until("the API server is ready", ready)
    layout.up.touch()
    supervisor.run()


def _in_own_namespaces(plan: Path, node: Node) -> tuple[str, ...]:
    return ("unshare", "--mount", "--net", "--uts", *python("tests.cluster.node", str(plan), str(node.index)))


def _connect(layout: Layout, node: Node) -> None:
    """A link to the node's namespace, and routes to it and to its pods: everything between nodes goes through here."""
    pid_file = layout.node_pid(node)
    until(f"{node.name} has its namespaces", ["test", "-s", str(pid_file)], 30)
    ip("link", "add", node.name, "type", "veth", "peer", "name", "eth0", "netns", pid_file.read_text())
    ip("link", "set", node.name, "up")
    ip("route", "add", f"{node.address}/32", "dev", node.name, "src", CONTROL_ADDRESS)
    ip("route", "add", node.pods, "via", node.address, "dev", node.name, "onlink", "src", CONTROL_ADDRESS)


if __name__ == "__main__":
    main()
