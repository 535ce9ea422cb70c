"""A Kubernetes control plane for tests: etcd, API server and controller-manager, on loopback, built from source.

By hand, from the repository's root:

    python -m tests.cluster.controlplane build   build the binary into the user's cache directory
    python -m tests.cluster.controlplane up      boot one, print its KUBECONFIG, stay until Ctrl-C

It needs Linux. Nothing outlives the process that booted it, however that process ends: each component asks the kernel
to be killed with it, and the folders of dead processes are swept by the next boot.
"""

from __future__ import annotations

import argparse
import fcntl
import http.client
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import httpx
from tests.cluster import crds
from tests.cluster.binary import build
from tests.cluster.certificates import Identities, Pair, client_certificate, make_identities, write_kubeconfig
from tests.ports import free_ports

_PREFIX = "penstock-controlplane-"
_READY_SECONDS = 180.0
_STOP_SECONDS = 10.0
SHORT_LIVED = {"GOGC": "off", "GOMEMLIMIT": "400MiB"}
"""Collecting garbage takes half of what a process of kubectl computes, which ends before it has much."""
_AMPLE = {"GOGC": "400", "GOMEMLIMIT": "1GiB"}
"""Collecting it takes a quarter of what an API server computes until it is up; so it takes some 250 MiB more."""
_CONTROLLER_MANAGER = "kube-controller-manager"
_BOOT_ATTEMPTS = 3
_CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "garbage-collector-controller",
    "horizontal-pod-autoscaler-controller",
    "namespace-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
)
"""What objects need to live and die, and what scales them; nothing here runs pods."""


class BootFailedError(Exception):
    """A component did not come up; the message holds the end of its log."""


class ControlPlane:
    """One control plane in a folder of its own. Use as a context manager.

    Components die with the *thread* that started them (a property of Linux's parent-death signal), so boot and restart
    from a thread that lives as long as the control plane shall.

    Args:
        binary: what `tests.cluster.binary.build` returns.
    """

    def __init__(self, binary: Path) -> None:
        _sweep()
        self._binary = binary
        self.folder, self._lock = _held_folder()
        self._identities: Identities = make_identities(self.folder / "pki")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._served: set[Path] = set()
        self._etcd_port = self._peer_port = self._port = 0

    def __enter__(self) -> Self:
        try:
            self._boot()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The API server's base URL."""
        return f"https://127.0.0.1:{self._port}"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder / "admin.kubeconfig"

    def kubectl(
        self,
        *args: str,
        input: str | None = None,  # noqa: A002  # as subprocess.run names it
        kubeconfig: Path | None = None,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl, as the administrator unless another kubeconfig is given."""
        done = subprocess.run(
            [str(self._binary), "kubectl", "--kubeconfig", str(kubeconfig or self.kubeconfig), *args],
            input=input,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **SHORT_LIVED},
        )
        if check and done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(args)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def run_with_kubectl(self, script: str, folder: Path) -> str:
        """Run a shell script whose `kubectl` is this cluster's, as the administrator; what it printed."""
        program = folder / "kubectl"
        program.write_text(f'#!/bin/sh\nexec {self._binary} kubectl --kubeconfig {self.kubeconfig} "$@"\n')
        program.chmod(0o755)
        environment = {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(self.folder), **SHORT_LIVED}
        done = subprocess.run(
            ["sh", "-e", "-c", script], capture_output=True, text=True, timeout=120, check=False, env=environment
        )
        if done.returncode != 0:
            raise AssertionError(f"exit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def client(self) -> httpx.Client:
        """A client of the API itself, as the administrator: a request takes a tenth of a process of kubectl."""
        context = _tls(self._identities.authority, self._identities.admin)
        return httpx.Client(base_url=self.url, verify=context, timeout=60)

    @contextmanager
    def namespace(self) -> Iterator[str]:
        """A fresh namespace; deleted afterwards, without waiting."""
        name = f"test-{secrets.token_hex(4)}"
        with self.client() as client:
            client.post("/api/v1/namespaces", json={"metadata": {"name": name}}).raise_for_status()
            yield name
            client.delete(f"/api/v1/namespaces/{name}").raise_for_status()

    def serve(self, manifests: Path) -> None:
        """Serve the custom resources of a file or folder of CRDs."""
        crds.serve(lambda *arguments: self.kubectl(*arguments).stdout, manifests)
        self._served.add(manifests)

    def serve_once(self, manifests: Path) -> None:
        """Serve them, where that was not asked for before: for those that nobody deletes."""
        if manifests not in self._served:
            self.serve(manifests)

    def kubeconfig_for(self, service_account: str, namespace: str) -> Path:
        """A kubeconfig with a fresh token of an existing ServiceAccount."""
        token = self.kubectl("create", "token", service_account, "-n", namespace, "--duration=2h").stdout.strip()
        path = self.folder / f"{namespace}-{service_account}.kubeconfig"
        return write_kubeconfig(path, self.url, self._identities.authority, {"token": token}, namespace)

    def kill_api_server(self) -> None:
        """Kill the API server as a crash would."""
        process = self._processes.pop("kube-apiserver")
        process.kill()
        process.wait(_STOP_SECONDS)

    def start_api_server(self) -> None:
        """Start a killed API server again, on the same port and data.

        A controller manager that was only starting ends with its API server; it is started again, as a kubelet would.
        """
        manager = self._processes.pop(_CONTROLLER_MANAGER, None)
        try:
            self._start_api_server()
            self._wait_ready()
        finally:
            if manager is not None:
                self._processes[_CONTROLLER_MANAGER] = manager
        if manager is not None and manager.poll() is not None:
            self._start_controller_manager()

    def stop(self) -> None:
        """Stop everything and remove the folder."""
        for name in (_CONTROLLER_MANAGER, "kube-apiserver", "etcd"):
            process = self._processes.pop(name, None)
            if process is not None:
                _end(process)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def _boot(self) -> None:
        for attempt in range(1, _BOOT_ATTEMPTS + 1):
            self._etcd_port, self._peer_port, self._port = free_ports(3)
            try:
                self._start_etcd()
                self._start_api_server()
                self._wait_ready()
                break
            except BootFailedError as error:
                # Between our choosing a port and the component's binding it, someone else may have taken it.
                if attempt == _BOOT_ATTEMPTS or "address already in use" not in str(error):
                    raise
                for name in tuple(self._processes):
                    _end(self._processes.pop(name))
                shutil.rmtree(self.folder / "etcd", ignore_errors=True)
        write_kubeconfig(
            self.kubeconfig, self.url, self._identities.authority, client_certificate(self._identities.admin)
        )
        self._start_controller_manager()

    def _start_etcd(self) -> None:
        client, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{self._peer_port}"
        self._start(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            "--unsafe-no-fsync",
            "--log-level=warn",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        )

    def _start_api_server(self) -> None:
        pki = self._identities
        self._start(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._port}",
            "--endpoint-reconciler-type=none",
            "--authorization-mode=RBAC",
            f"--client-ca-file={pki.authority}",
            f"--tls-cert-file={pki.server.certificate}",
            f"--tls-private-key-file={pki.server.key}",
            f"--service-account-key-file={pki.service_account_key}",
            f"--service-account-signing-key-file={pki.service_account_key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--profiling=false",
        )

    def _start_controller_manager(self) -> None:
        config = self.folder / "controller-manager.kubeconfig"
        user = client_certificate(self._identities.controller_manager)
        write_kubeconfig(config, self.url, self._identities.authority, user)
        self._start(
            _CONTROLLER_MANAGER,
            f"--kubeconfig={config}",
            f"--controllers={','.join(_CONTROLLERS)}",
            "--horizontal-pod-autoscaler-sync-period=1s",
            f"--service-account-private-key-file={self._identities.service_account_key}",
            f"--root-ca-file={self._identities.authority}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--secure-port=0",
            "--profiling=false",
        )

    def _start(self, name: str, *flags: str) -> None:
        """Start a component in a process group of its own, to be killed by the kernel when this thread's process dies."""
        with self._log_path(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", str(self._binary), name, *flags],
                env=os.environ | _AMPLE,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.folder,
            )

    def _log_path(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        context = _tls(self._identities.authority, self._identities.admin)
        while True:
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise BootFailedError(f"{name} ended with {process.returncode}:\n{self._log_tail(name)}")
            if _answers_ready(self._port, context):
                return
            if time.monotonic() > deadline:
                tail = self._log_tail("kube-apiserver")
                raise BootFailedError(f"the API server is not ready after {_READY_SECONDS:.0f} s:\n{tail}")
            time.sleep(0.1)

    def _log_tail(self, name: str) -> str:
        return "\n".join(self._log_path(name).read_text(errors="replace").splitlines()[-30:])


def _tls(authority: Path, client: Pair) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority))
    context.load_cert_chain(client.certificate, client.key)
    return context


def _answers_ready(port: int, context: ssl.SSLContext) -> bool:
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False  # not up yet; the caller has a deadline
    finally:
        connection.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End one component: politely, then by force."""
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_STOP_SECONDS)


def _held_folder() -> tuple[Path, IO[bytes]]:
    """A new folder, locked for as long as this process lives: what is not locked was left by a dead one.

    It gets its name once it is locked, so that no other process sweeps it before.
    """
    new = Path(tempfile.mkdtemp(prefix=f"new-{_PREFIX}"))
    lock = (new / "lock").open("wb")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return new.rename(new.with_name(new.name.removeprefix("new-"))), lock


def _sweep() -> None:
    """Remove the folders of control planes whose process was killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            with (folder / "lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except (BlockingIOError, FileNotFoundError, PermissionError):
            continue  # in use, being made, or another user's


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster.controlplane", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("command", choices=("build", "up"), help="build the binary only, or boot and stay until Ctrl-C")
    command = parser.parse_args().command
    binary = build(_say)
    if command == "build":
        print(binary)
        return 0
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with ControlPlane(binary) as plane:
        print(f"export KUBECONFIG={plane.kubeconfig}", flush=True)
        _say(f"kubectl: {binary} kubectl ...; Ctrl-C stops it all")
        ended.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
