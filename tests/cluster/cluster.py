"""A Kubernetes for end-to-end tests: this machine's own, one made by kind, or whichever KUBECONFIG leads to."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from tests.cluster import boot, namespaces
from tests.cluster.archive import read_image
from tests.cluster.binary import Report, build
from tests.cluster.forward import forwarded
from tests.cluster.layout import Layout

_KUBECTL_SECONDS = 300.0


class Cluster(Protocol):
    """What end-to-end tests need of a cluster."""

    kubeconfig: Path
    started: bool
    """Whether it was started for this session, which ends it."""
    enforces_policies: bool
    """Whether its network drops what no NetworkPolicy lets through."""

    def kubectl(self, *arguments: str, manifest: object = None, check: bool = True) -> str:
        """Run kubectl; its output, with its errors where it may fail."""

    def load_image(self, archive: Path) -> str:
        """Make an OCI image archive's image runnable on all nodes; the name that pods use."""

    def namespace(self, prefix: str = "e2e") -> AbstractContextManager[str]:
        """A fresh namespace, gone when the block has ended."""

    def forward(self, service: str, namespace: str, port: int) -> AbstractContextManager[str]:
        """`http://ADDRESS:PORT` on this machine, that leads to a Service's port until the block ends."""

    def reach(self, service: str, namespace: str, port: int) -> AbstractContextManager[str]:
        """`http://ADDRESS:PORT` for what `start` starts: as near to the Service as this cluster lets it come."""

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[str]:
        """Start a program of this machine, with pipes, where what `reach` gives leads to the Service."""

    def kill(self, namespace: str, pod: str, container: str) -> None:
        """Have a container end as in a crash, or come as near to it as this cluster lets it."""

    def stop(self) -> None:
        """End the cluster, if it was started for this session."""

    def logs(self, namespace: str, selector: str) -> str:
        """The last lines of every container of the pods with a label, and those of the containers before them."""

    def whole_log(self, namespace: str, selector: str) -> str:
        """All lines that the containers of the pods with a label have written, as they wrote them."""


class Kubectl:
    """What goes through the API server alone, and so is the same in every cluster."""

    def __init__(self, kubeconfig: Path, report: Report) -> None:
        self.kubeconfig = kubeconfig
        self._kubectl = build(report)

    def kubectl(self, *arguments: str, manifest: object = None, check: bool = True) -> str:
        """Run kubectl, with an object or a list of them as its standard input where given.

        Raises:
            AssertionError: it failed, and was not to.
        """
        content = {"apiVersion": "v1", "kind": "List", "items": manifest} if isinstance(manifest, list) else manifest
        done = subprocess.run(
            [str(self._kubectl), "kubectl", "--kubeconfig", str(self.kubeconfig), *arguments],
            input=None if content is None else json.dumps(content),
            capture_output=True, text=True, timeout=_KUBECTL_SECONDS, check=False,
        )  # fmt: skip
        if check and done.returncode != 0:
            words = " ".join(arguments)
            raise AssertionError(f"kubectl {words}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout if check else done.stdout + done.stderr

    @contextmanager
    def namespace(self, prefix: str = "e2e") -> Iterator[str]:
        """A fresh namespace; deleted with all that is in it when the block has ended."""
        name = f"{prefix}-{secrets.token_hex(3)}"
        self.kubectl("create", "namespace", name)
        try:
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--timeout=180s")

    def kill(self, namespace: str, pod: str, container: str) -> None:  # noqa: ARG002  # where it can be told apart
        """Delete the pod without grace: what is in it gets SIGKILL."""
        self.kubectl("delete", "pod", pod, "-n", namespace, "--grace-period=0", "--force", "--wait=false")

    def logs(self, namespace: str, selector: str) -> str:
        """What the pods with a label said last."""
        arguments = ("logs", "-n", namespace, "-l", selector, "--all-containers", "--prefix", "--tail=200")
        return self.kubectl(*arguments, check=False) + self.kubectl(*arguments, "--previous", check=False)

    def whole_log(self, namespace: str, selector: str) -> str:
        """What the pods with a label said from their start."""
        return self.kubectl("logs", "-n", namespace, "-l", selector, "--all-containers", "--tail=-1")


class OwnCluster(Kubectl):
    """The cluster of `tests.cluster` itself: the one that is up, or one that lives as long as its owner's process."""

    enforces_policies = True

    def __init__(self, report: Report, owner: int | None = None) -> None:
        self.layout = Layout()
        self.started = not boot.alive(self.layout)
        self._report = report
        boot.up(self.layout, report, owner=owner or os.getpid())
        super().__init__(self.layout.kubeconfig, report)

    def load_image(self, archive: Path) -> str:
        """Import an archive into each node's image store."""
        boot.load_images(self.layout, (archive,), self._report)
        return read_image(archive).name

    @contextmanager
    def forward(self, service: str, namespace: str, port: int) -> Iterator[str]:
        """A port on loopback, carried to the Service's address on the first node."""
        address = self.kubectl("get", "service", service, "-n", namespace, "-o", "jsonpath={.spec.clusterIP}")
        with forwarded(namespaces.network(self.layout, self.layout.nodes[0]), address, port) as local:
            yield f"http://127.0.0.1:{local}"

    @contextmanager
    def reach(self, service: str, namespace: str, port: int) -> Iterator[str]:
        """The Service's own address."""
        address = self.kubectl("get", "service", service, "-n", namespace, "-o", "jsonpath={.spec.clusterIP}")
        yield f"http://{address}:{port}"

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[str]:
        """Start a program of this machine on the first node. To end it, close its standard input: signals reach only
        what brings it there."""
        command = namespaces.command(self.layout, self.layout.nodes[0], tuple(arguments), Path.cwd())
        return start_here(command)

    def kill(self, namespace: str, pod: str, container: str) -> None:
        """SIGKILL a container's first process; the kubelet sees it end, as after a crash."""
        found = json.loads(self.kubectl("get", "pod", pod, "-n", namespace, "-o", "json"))
        statuses = {each["name"]: each["containerID"] for each in found["status"]["containerStatuses"]}
        (node,) = (each for each in self.layout.nodes if each.name == found["spec"]["nodeName"])
        identity = statuses[container].removeprefix("containerd://")
        boot.on_node(self.layout, node, "ctr", "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", identity)

    def run(self, arguments: Sequence[str], timeout: float = 300.0) -> subprocess.CompletedProcess[str]:
        """Run a program of this machine on the first node: its network, its name server, this folder."""
        command = namespaces.command(self.layout, self.layout.nodes[0], tuple(arguments), Path.cwd())
        environment = os.environ | {"KUBECONFIG": str(self.layout.configuration / "admin.kubeconfig")}
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=environment)

    def stop(self) -> None:
        """End the cluster, if it was started for this session."""
        if self.started:
            boot.down(self.layout)


def start_here(arguments: Sequence[str]) -> subprocess.Popen[str]:
    """Start a program with pipes to it."""
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
