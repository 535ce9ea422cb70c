"""The cluster that KUBECONFIG leads to, and which of the three kinds of cluster is meant."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.archive import read_image
from tests.cluster.binary import Report
from tests.cluster.cluster import Cluster, Kubectl, OwnCluster, start_here
from tests.cluster.kind.cluster import KindCluster
from tests.cluster.packages import NotPossibleError

_RELAY = """
import asyncio, sys
async def copy(reader, writer):
    try:
        while part := await reader.read(65536):
            writer.write(part)
            await writer.drain()
    finally:
        writer.close()
async def relay(reader, writer):
    try:
        there = await asyncio.open_connection(sys.argv[1], int(sys.argv[2]))
    except OSError:
        writer.close()
        return
    await asyncio.gather(copy(reader, there[1]), copy(there[0], writer), return_exceptions=True)
async def main():
    await (await asyncio.start_server(relay, "0.0.0.0", 8080)).serve_forever()
asyncio.run(main())
"""
"""A pod's program that carries connections to a Service: unlike a port-forward to it, it outlives the Service's pods."""


class CurrentCluster(Kubectl):
    """Whichever cluster KUBECONFIG leads to. It must run KubeRay already, and be able to pull the images."""

    started = False
    enforces_policies = os.environ.get("E2E_NETWORK_POLICIES") != "ignored"

    def __init__(self, report: Report, *, again: bool) -> None:
        kubeconfig = os.environ.get("KUBECONFIG")
        self._repository = os.environ.get("E2E_IMAGE_REPOSITORY", "").rstrip("/")
        self._pushed = os.environ.get("E2E_IMAGES") == "pushed"
        if not kubeconfig or not self._repository:
            raise NotPossibleError(
                "CLUSTER=current needs KUBECONFIG, and E2E_IMAGE_REPOSITORY: the registry and folder to which images are"
                " pushed, and from which the cluster pulls them"
            )
        if not self._pushed and shutil.which("skopeo") is None:
            raise NotPossibleError(
                f"CLUSTER=current needs skopeo, which pushes the images to {self._repository}; or E2E_IMAGES=pushed, if"
                " they are all there"
            )
        super().__init__(Path(kubeconfig), report)
        self.kubectl("get", "crd", "rayclusters.ray.io")
        if not again and "penstock" in self.kubectl(
            "get", "deployment", "-n", "penstock-system", "-o", "name", check=False
        ):
            raise NotPossibleError(
                "Penstock is installed in this cluster: the tests would upgrade and uninstall it. Give them a cluster of"
                " their own, or uninstall it"
            )
        self._python = ""

    def load_image(self, archive: Path) -> str:
        """Push an archive to where the cluster pulls from; the image's name there."""
        name = f"{self._repository}/{read_image(archive).name.rpartition('/')[2]}"
        if not self._pushed:
            done = subprocess.run(
                ["skopeo", "copy", f"oci-archive:{archive}", f"docker://{name}"],
                capture_output=True, text=True, timeout=900, check=False,
            )  # fmt: skip
            if done.returncode != 0:
                raise NotPossibleError(f"skopeo copy to {name}: {done.stderr.strip()}")
        if "/operator:" in name:
            self._python = name
        return name

    @contextmanager
    def forward(self, service: str, namespace: str, port: int) -> Iterator[str]:
        """A kubectl port-forward; it leads to one pod, and ends with it."""
        with self._port_forward(f"service/{service}", namespace, port) as url:
            yield url

    @contextmanager
    def reach(self, service: str, namespace: str, port: int) -> Iterator[str]:
        """A port-forward to a pod of our own, which carries connections to the Service."""
        name = f"relay-{secrets.token_hex(3)}"
        pod = {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name, "e2e.penstock.dev/kept": "yes"}},
            "spec": {
                "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0,
                "containers": [
                    {
                        "name": "relay", "image": self._python,
                        "command": ["/opt/penstock/bin/python", "-c", _RELAY, f"{service}.{namespace}.svc", str(port)],
                        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                    }
                ],
            },
        }  # fmt: skip
        with self.namespace("relay") as own:
            self.kubectl("apply", "-n", own, "-f", "-", manifest=pod)
            self.kubectl("wait", "--for=condition=Ready", "--timeout=120s", f"pod/{name}", "-n", own)
            with self._port_forward(f"pod/{name}", own, 8080) as url:
                yield url

    @contextmanager
    def _port_forward(self, what: str, namespace: str, port: int) -> Iterator[str]:
        with tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(
                [
                    str(self._kubectl), "kubectl", "--kubeconfig", str(self.kubeconfig), "port-forward",
                    "-n", namespace, what, f":{port}",
                ],
                stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
            try:
                assert process.stdout is not None
                line = process.stdout.readline()  # Forwarding from 127.0.0.1:40000 -> 80
                if "->" not in line:
                    log.seek(0)
                    raise AssertionError(f"kubectl port-forward {what}: {line}{log.read()}")
                yield f"http://{line.split()[2]}"
            finally:
                process.terminate()
                process.wait(10)

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[str]:
        """Start a program on this machine."""
        return start_here(arguments)

    def stop(self) -> None:
        """The cluster is not ours to end."""


def open_cluster(kind: str, report: Report, owner: int | None = None, *, again: bool = False) -> Cluster:
    """The cluster of a kind: `own`, `kind` or `current`.

    Args:
        kind: as above.
        report: shows progress.
        owner: the process with whose end a cluster of our own ends, where nobody stops it; this one where None.
        again: whether another worker of the tests has it open already.

    Raises:
        NotPossibleError: it cannot be had here; the message says what is missing.
    """
    match kind:
        case "own":
            return OwnCluster(report, owner)
        case "kind":
            return KindCluster(report)
        case "current":
            return CurrentCluster(report, again=again)
        case _:
            raise NotPossibleError(f"CLUSTER={kind}: write own, kind or current")
