"""A cluster made by kind, with KubeRay in it."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.cluster import kuberay
from tests.cluster.archive import read_image
from tests.cluster.binary import Report
from tests.cluster.cluster import Kubectl, start_here
from tests.cluster.kind import network, node_image
from tests.cluster.kind.docker import Docker
from tests.cluster.packages import NotPossibleError
from tests.cluster.tools import tool

_NAME = "penstock-e2e"
_WORKERS = (f"{_NAME}-worker", f"{_NAME}-worker2")
_PULLED = "docker.io/kindest/node:v1.35.0"
"""The image that the pinned kind is released with."""
_FRESH_SECONDS = 15.0
_KUBELET = "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\nfailCgroupV1: false\n"


def state() -> Path:
    """What there is while a cluster of kind's runs: its kubeconfig, and a docker of our own."""
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return base / "penstock" / "kind"


class KindCluster(Kubectl):
    """The cluster of that name which is up, or a new one."""

    enforces_policies = False
    """Kind's own plug-in does where the kernel has nftables' queue statement; the image that is made here has none."""

    def __init__(self, report: Report) -> None:
        self._docker = Docker(state())
        self._docker.start(report)
        self._kind_program = tool("kind", report)
        kubeconfig = state() / "kubeconfig"
        self.started = _NAME not in self._kind("get", "clusters").split()
        super().__init__(kubeconfig, report)
        if self.started:
            began = time.monotonic()
            state().mkdir(parents=True, exist_ok=True)
            self._create(kubeconfig, report)
            report(f"kind's cluster is ready ({time.monotonic() - began:.1f} s)")
            self.load_image(kuberay.image_archive(report))
            kuberay.install(self.kubectl, report)
            report(f"the cluster is up ({time.monotonic() - began:.1f} s)")

    def _create(self, kubeconfig: Path, report: Report) -> None:
        image = self._pulled() or self._made(report)
        report(f"creating a kind cluster of {image}")
        configuration = {
            "apiVersion": "kind.x-k8s.io/v1alpha4", "kind": "Cluster",
            "networking": {"disableDefaultCNI": image != _PULLED, "kubeProxyMode": "nftables"},
            "kubeadmConfigPatches": [_KUBELET],
            "nodes": [{"role": role, "image": image} for role in ("control-plane", "worker", "worker")],
        }  # fmt: skip
        file = state() / "kind.json"
        file.write_text(json.dumps(configuration))
        self._kind("create", "cluster", "--name", _NAME, "--config", str(file), "--kubeconfig", str(kubeconfig))
        if image != _PULLED:
            network.connect(self._docker, self.kubectl)
        self.kubectl("wait", "node", "--all", "--for=condition=Ready", "--timeout=180s")
        self.kubectl("rollout", "status", "deployment/coredns", "-n", "kube-system", "--timeout=120s")

    def _pulled(self) -> str | None:
        """Kind's own image, where it is here or can be pulled."""
        for ask in (("image", "inspect", "-f", "{{.Id}}"), ("pull", "--quiet")):
            if self._docker.run(*ask, _PULLED, check=False).strip():
                return _PULLED
        return None

    def _made(self, report: Report) -> str:
        archive = node_image.root_archive(report)
        name = f"penstock-test/kind-node:{archive.stem.rpartition('-')[2]}"
        if not self._docker.run("image", "inspect", "-f", "{{.Id}}", name, check=False).strip():
            entry = 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]'
            self._docker.run("import", "--change", entry, "--change", "ENV container=docker", str(archive), name)
        return name

    def load_image(self, archive: Path) -> str:
        """Have kind import an archive into the nodes that run pods of tests."""
        self._kind("load", "image-archive", str(archive), "--name", _NAME, "--nodes", ",".join(_WORKERS))
        return read_image(archive).name

    @contextmanager
    def forward(self, service: str, namespace: str, port: int) -> Iterator[str]:
        """A NodePort on a node, whose address docker's host can reach: a port-forward would end with its pod."""
        found = json.loads(self.kubectl("get", "service", service, "-n", namespace, "-o", "json"))
        name = f"{service}-e2e-{secrets.token_hex(2)}"
        ports = [{"port": each["port"], "targetPort": each["targetPort"]} for each in found["spec"]["ports"]]
        twin = {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "type": "NodePort", "selector": found["spec"]["selector"],
                "ports": [each | {"name": f"p{each['port']}"} for each in ports if each["port"] == port],
            },
        }  # fmt: skip
        self.kubectl("apply", "-f", "-", manifest=twin)
        try:
            where = ("get", "service", name, "-n", namespace, "-o", "jsonpath={.spec.ports[0].nodePort}")
            node = 'jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}'
            address, port = self.kubectl("get", "nodes", "-o", node), int(self.kubectl(*where))
            _await_listening(address, port)
            yield f"http://{address}:{port}"
        finally:
            self.kubectl("delete", "service", name, "-n", namespace)

    def reach(self, service: str, namespace: str, port: int) -> AbstractContextManager[str]:
        """As `forward`."""
        return self.forward(service, namespace, port)

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[str]:
        """Start a program on this machine."""
        return start_here(arguments)

    def kill(self, namespace: str, pod: str, container: str) -> None:
        """SIGKILL a container's first process; the kubelet sees it end, as after a crash."""
        found = json.loads(self.kubectl("get", "pod", pod, "-n", namespace, "-o", "json"))
        statuses = {each["name"]: each["containerID"] for each in found["status"]["containerStatuses"]}
        identity = statuses[container].removeprefix("containerd://")
        kill = ("ctr", "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", identity)
        self._docker.run("exec", found["spec"]["nodeName"], *kill)

    def stop(self) -> None:
        """Delete the cluster, if it was this object that made it, and end a docker that was started for it."""
        if self.started:
            down(self._docker, self._kind_program)

    def _kind(self, *arguments: str) -> str:
        return run_kind(self._docker, self._kind_program, *arguments)


def _await_listening(address: str, port: int) -> None:
    """Wait until a node takes connections at a fresh NodePort, or until it seems that no pod is behind it."""
    deadline = time.monotonic() + _FRESH_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection((address, port), _FRESH_SECONDS).close()
        except OSError:
            time.sleep(0.1)
        else:
            return


def run_kind(docker: Docker, program: Path, *arguments: str) -> str:
    """Run kind; its output.

    Raises:
        NotPossibleError: it failed.
    """
    done = subprocess.run(
        [str(program), *arguments], capture_output=True, text=True, timeout=900, check=False, env=docker.environment
    )
    if done.returncode != 0:
        raise NotPossibleError(f"kind {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.stdout


def down(docker: Docker, program: Path) -> None:
    """Delete the cluster, and end a docker of our own."""
    if docker.answers():
        run_kind(docker, program, "delete", "cluster", "--name", _NAME)
        docker.run("network", "rm", "kind", check=False)
    docker.stop()
