"""Runs programs inside the test cluster: on its network, with its name server."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.layout import Layout, Node


def network(layout: Layout, node: Node) -> Path:
    """The file that stands for the node's network namespace, from which Services and pods are reached."""
    return _folder(layout, node) / "net"


def command(layout: Layout, node: Node, arguments: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    """The command that runs another on the node, in a folder; it ends with the cluster."""
    own = _folder(layout, node)
    spaces = (f"--net={own / 'net'}", f"--uts={own / 'uts'}", f"--mount={own / 'mnt'}")
    init = Path("/proc", layout.init_pid.read_text(), "ns")
    return ("nsenter", f"--pid={init / 'pid'}", f"--ipc={init / 'ipc'}", *spaces, "env", "-C", str(folder), *arguments)


def _folder(layout: Layout, node: Node) -> Path:
    """The node's namespaces, as the cluster's own /proc names them: its process ids are not the host's."""
    root = Path("/proc", layout.init_pid.read_text(), "root")
    return root / "proc" / layout.node_pid(node).read_text() / "ns"
