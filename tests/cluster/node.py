"""One node of the test cluster, in mount, network and host-name namespaces of its own.

python -m tests.cluster.node PLAN INDEX
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cluster import cgroups
from tests.cluster.configuration import asked_about, containerd, node_agents
from tests.cluster.init import Plan, ip
from tests.cluster.layout import CONTROL_ADDRESS, Node
from tests.cluster.mounts import private_view
from tests.cluster.supervise import Supervisor, until

_CTR = ("ctr", "-n", "k8s.io")


def main() -> None:
    """Bring the node up and keep it running."""
    plan = Plan.read(Path(sys.argv[1]))
    layout, node = plan.layout, Node(int(sys.argv[2]))
    private_view(layout)
    subprocess.run(["hostname", node.name], check=True, timeout=30)
    pid_file = layout.node_pid(node)
    pid_file.with_suffix(".new").write_text(str(os.getpid()))
    pid_file.with_suffix(".new").rename(pid_file)
    cgroups.create(f"{layout.cgroup}/{node.name}")
    layout.kubelet(node).mkdir(parents=True, exist_ok=True)
    layout.image_store(node).mkdir(parents=True, exist_ok=True)

    supervisor = Supervisor(layout.logs, f"{node.name}-")
    supervisor.start(containerd(layout, node))
    _join_network(node)
    until("containerd answers", [*_CTR, "version"], 60)
    if _forget_containers():
        supervisor.kill("containerd")  # it holds what it read of them in memory
    supervisor.start(*node_agents(layout, node, plan.binaries))
    supervisor.run()


def _join_network(node: Node) -> None:
    until("the node is connected", ["ip", "link", "show", "eth0"], 60)
    ip("link", "set", "lo", "up")
    ip("address", "add", f"{node.address}/32", "dev", "eth0")
    ip("link", "set", "eth0", "up")
    ip("route", "add", CONTROL_ADDRESS, "dev", "eth0", "scope", "link", "src", node.address)
    ip("route", "add", "default", "via", CONTROL_ADDRESS, "dev", "eth0", "onlink", "src", node.address)
    # What is sent to a pod that is gone is dropped, as with most networks: it must not go round and round.
    ip("route", "add", "blackhole", node.pods)
    for rule in asked_about():
        subprocess.run(["iptables", "--wait", *rule], check=True, timeout=30)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _forget_containers() -> bool:
    """Remove what an earlier cluster's pods left in the image store; whether there was anything."""
    listed = subprocess.run([*_CTR, "containers", "list", "-q"], check=True, capture_output=True, text=True, timeout=60)
    names = listed.stdout.split()
    if names:
        subprocess.run([*_CTR, "containers", "delete", *names], check=True, capture_output=True, timeout=120)
    return bool(names)


if __name__ == "__main__":
    main()
