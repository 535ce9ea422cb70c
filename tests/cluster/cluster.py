"""A Kubernetes for end-to-end tests: this machine's own, one made by kind, or whichever KUBECONFIG leads to."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from tests.cluster import boot, kuberay, namespaces
from tests.cluster.archive import read_image
from tests.cluster.binary import Report, build
from tests.cluster.forward import forwarded
from tests.cluster.layout import Layout
from tests.cluster.packages import NotPossibleError

_KUBECTL_SECONDS = 300.0


class Cluster(Protocol):
    """What end-to-end tests need of a cluster."""

    kubeconfig: Path

    def kubectl(self, *arguments: str, manifest: object = None, check: bool = True) -> str:
        """Run kubectl; its output, with its errors where it may fail."""

    def load_image(self, archive: Path) -> str:
        """Make an OCI image archive's image runnable on all nodes; the name that pods use."""

    def namespace(self, prefix: str = "e2e") -> AbstractContextManager[str]:
        """A fresh namespace, gone when the block has ended."""

    def forward(self, service: str, namespace: str, port: int) -> AbstractContextManager[str]:
        """`http://ADDRESS:PORT` on this machine, that leads to a Service's port until the block ends."""

    def logs(self, namespace: str, selector: str) -> str:
        """The last lines of every container of the pods with a label, and those of the containers before them."""


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

    def logs(self, namespace: str, selector: str) -> str:
        """What the pods with a label said last."""
        arguments = ("logs", "-n", namespace, "-l", selector, "--all-containers", "--prefix", "--tail=200")
        return self.kubectl(*arguments, check=False) + self.kubectl(*arguments, "--previous", check=False)


class OwnCluster(Kubectl):
    """The cluster of `tests.cluster` itself: the one that is up, or one that lives as long as this process."""

    def __init__(self, report: Report, layout: Layout | None = None) -> None:
        self.layout = layout or Layout()
        self.started = not boot.alive(self.layout)
        self._report = report
        boot.up(self.layout, report, owner=os.getpid())
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

    def run(self, arguments: Sequence[str], timeout: float = 300.0) -> subprocess.CompletedProcess[str]:
        """Run a program of this machine on the first node: its network, its name server, this folder."""
        command = namespaces.command(self.layout, self.layout.nodes[0], tuple(arguments), Path.cwd())
        environment = os.environ | {"KUBECONFIG": str(self.layout.configuration / "admin.kubeconfig")}
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=environment)

    def stop(self) -> None:
        """End the cluster, if it was this object that started it."""
        if self.started:
            boot.down(self.layout)


class KindCluster(Kubectl):
    """A cluster made by kind, in docker or podman, with KubeRay in it."""

    _NAME = "penstock-e2e"

    def __init__(self, report: Report) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="penstock-kind-")
        kubeconfig = Path(self._folder.name, "kubeconfig")
        existing = _kind("get", "clusters").split()
        if self._NAME in existing:
            _kind("export", "kubeconfig", "--name", self._NAME, "--kubeconfig", str(kubeconfig))
        else:
            report("creating a kind cluster")
            configuration = {
                "apiVersion": "kind.x-k8s.io/v1alpha4", "kind": "Cluster",
                "nodes": [{"role": "control-plane"}, {"role": "worker"}, {"role": "worker"}],
            }  # fmt: skip
            file = Path(self._folder.name, "kind.json")
            file.write_text(json.dumps(configuration))
            _kind(
                "create", "cluster", "--name", self._NAME, "--config", str(file), "--kubeconfig", str(kubeconfig),
                "--wait", "180s",
            )  # fmt: skip
        self._created = self._NAME not in existing
        super().__init__(kubeconfig, report)
        self.load_image(kuberay.image_archive(report))
        kuberay.install(self.kubectl, report)

    def load_image(self, archive: Path) -> str:
        """Have kind import an archive into its nodes."""
        _kind("load", "image-archive", str(archive), "--name", self._NAME)
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
            yield f"http://{self.kubectl('get', 'nodes', '-o', node)}:{self.kubectl(*where)}"
        finally:
            self.kubectl("delete", "service", name, "-n", namespace)

    def stop(self) -> None:
        """Delete the cluster, if it was this object that made it."""
        if self._created:
            _kind("delete", "cluster", "--name", self._NAME)
        self._folder.cleanup()


class CurrentCluster(Kubectl):
    """Whichever cluster KUBECONFIG leads to. It must run KubeRay already, and be able to pull the images."""

    def __init__(self, report: Report) -> None:
        kubeconfig = os.environ.get("KUBECONFIG")
        self._repository = os.environ.get("E2E_IMAGE_REPOSITORY", "")
        if not kubeconfig or not self._repository:
            raise NotPossibleError(
                "CLUSTER=current needs KUBECONFIG, and E2E_IMAGE_REPOSITORY: the registry and folder from which the"
                " cluster pulls operator, gateway, runtime and optimizer"
            )
        super().__init__(Path(kubeconfig), report)
        self.kubectl("get", "crd", "rayclusters.ray.io")

    def load_image(self, archive: Path) -> str:
        """The name under which the cluster pulls the image; it must have been pushed there."""
        return f"{self._repository.rstrip('/')}/{read_image(archive).name.rpartition('/')[2]}"

    @contextmanager
    def forward(self, service: str, namespace: str, port: int) -> Iterator[str]:
        """A kubectl port-forward; it leads to one pod, and ends with it."""
        with tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(
                [
                    str(self._kubectl), "kubectl", "--kubeconfig", str(self.kubeconfig), "port-forward",
                    "-n", namespace, f"service/{service}", f":{port}",
                ],
                stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
            try:
                assert process.stdout is not None
                line = process.stdout.readline()  # Forwarding from 127.0.0.1:40000 -> 80
                if "->" not in line:
                    log.seek(0)
                    raise AssertionError(f"kubectl port-forward service/{service}: {line}{log.read()}")
                yield f"http://{line.split()[2]}"
            finally:
                process.terminate()
                process.wait(10)

    def stop(self) -> None:
        """The cluster is not ours to end."""


def _kind(*arguments: str) -> str:
    try:
        done = subprocess.run(["kind", *arguments], capture_output=True, text=True, timeout=900, check=False)
    except FileNotFoundError:
        raise NotPossibleError("CLUSTER=kind needs kind on PATH, and docker or podman") from None
    if done.returncode != 0:
        raise NotPossibleError(f"kind {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.stdout


def open_cluster(kind: str, report: Report) -> OwnCluster | KindCluster | CurrentCluster:
    """The cluster of a kind: `own`, `kind` or `current`.

    Raises:
        NotPossibleError: it cannot be had here; the message says what is missing.
    """
    match kind:
        case "own":
            return OwnCluster(report)
        case "kind":
            return KindCluster(report)
        case "current":
            return CurrentCluster(report)
        case _:
            raise NotPossibleError(f"CLUSTER={kind}: write own, kind or current")
