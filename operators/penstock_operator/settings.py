"""The operator's settings, read once from the command line."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import Invalid

_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class OptimizationSettings:
    """How models are optimized."""

    store: str | None = None
    """fsspec URI of the artifact store; None: profiles are not applied, and deployments say so."""
    signing_key_file: Path | None = None
    """Private key in PEM, for Jobs that are processes of this machine."""
    signing_key_secret: str | None = None
    """Secret in each namespace with the private key, for Jobs in pods."""
    image: str | None = None
    """The optimizer's container image, for Jobs in pods."""
    workspace: Path | None = None
    """Folder that keeps what searches found, on this machine; in pods it goes with the pod."""


@dataclass(frozen=True)
class Settings:
    """How this operator runs."""

    kubeconfig: Path | None = None
    context: str | None = None
    standalone: Path | None = None
    """File of the embedded store; None: a real Kubernetes API."""
    gateways: tuple[str, ...] = ()
    """Base URLs of the gateway agents' control API."""
    gateway_secret: str = ""
    replica_host: str | None = None
    """Where replicas listen; None: their node's address."""
    trusted_keys: tuple[str, ...] = ()
    """Public keys in PEM: an optimized model must be signed by one of them."""
    optimization: OptimizationSettings = OptimizationSettings()
    namespaces: tuple[str, ...] = ()
    """What to watch; empty: all namespaces."""
    lease_name: str = "penstock-operator"
    lease_namespace: str = "penstock-system"
    identity: str = ""
    health_host: str = "127.0.0.1"
    health_port: int = 8082
    workers: int = 8
    log_level: str = "info"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="penstock-operator", description="Reconciles Penstock's resources with Ray clusters and gateways."
    )
    result.add_argument("--kubeconfig", type=Path, help="default: the pod's service account, else the user's default")
    result.add_argument("--context", help="context of the kubeconfig")
    result.add_argument("--standalone", type=Path, metavar="STORE", help="use this embedded store, not Kubernetes")
    result.add_argument("--gateway", action="append", default=[], metavar="URL", help="a gateway agent; repeatable")
    result.add_argument("--gateway-secret-file", type=Path, help="file with the gateways' secret")
    result.add_argument("--replica-host", help="address for replicas to listen on; default: their node's")
    result.add_argument(
        "--artifact-store", metavar="URI", help="where optimized models and reports go; none: no profiles"
    )
    result.add_argument("--optimizer-image", metavar="IMAGE", help="container image of the optimization Jobs")
    result.add_argument("--signing-key-file", type=Path, help="private key (PEM), with --standalone")
    result.add_argument(
        "--signing-key-secret", metavar="NAME", help="Secret with the private key in key.pem, in each model's namespace"
    )
    result.add_argument(
        "--trusted-key-file", type=Path, action="append", default=[],
        help="public key (PEM) that optimized models may be signed by; repeatable",
    )  # fmt: skip
    result.add_argument(
        "--optimizer-workspace", type=Path, help="folder that keeps what searches found, with --standalone"
    )
    result.add_argument("--namespace", action="append", default=[], help="watch only this one; repeatable")
    result.add_argument("--lease-name", default=Settings.lease_name)
    result.add_argument("--lease-namespace", default=Settings.lease_namespace)
    result.add_argument("--identity", help="who holds the lease; default: host name and process id")
    result.add_argument("--health-host", default=Settings.health_host, help="address for /healthz, /readyz, /metrics")
    result.add_argument("--health-port", type=int, default=Settings.health_port)
    result.add_argument("--workers", type=int, default=Settings.workers, help="reconciles at a time")
    result.add_argument("--log-level", choices=_LEVELS, default=Settings.log_level)
    return result


def read(arguments: Sequence[str]) -> Settings:
    """The settings that a command line says.

    Raises:
        Invalid: they contradict each other, or the secret cannot be read.
    """
    given = parser().parse_args(arguments)
    if given.standalone and (given.kubeconfig or given.context):
        raise Invalid("InvalidSettings", "--standalone uses no Kubernetes; leave out --kubeconfig and --context")
    if given.gateway and not given.gateway_secret_file:
        raise Invalid("InvalidSettings", "--gateway needs --gateway-secret-file, the gateways' secret")
    if given.workers < 1:
        raise Invalid("InvalidSettings", "--workers must be at least 1")
    _check_optimization(given)
    return Settings(
        kubeconfig=given.kubeconfig,
        context=given.context,
        standalone=given.standalone,
        gateways=tuple(url.rstrip("/") for url in given.gateway),
        gateway_secret=_secret(given.gateway_secret_file),
        # One machine: replicas, gateway and operator meet on loopback.
        replica_host=given.replica_host or ("127.0.0.1" if given.standalone else None),
        trusted_keys=tuple(_read(path, "--trusted-key-file") for path in given.trusted_key_file),
        optimization=OptimizationSettings(
            store=given.artifact_store,
            signing_key_file=given.signing_key_file,
            signing_key_secret=given.signing_key_secret,
            image=given.optimizer_image,
            workspace=given.optimizer_workspace,
        ),
        namespaces=tuple(given.namespace),
        lease_name=given.lease_name,
        lease_namespace="default" if given.standalone else given.lease_namespace,
        identity=given.identity or f"{socket.gethostname()}-{os.getpid()}",
        health_host=given.health_host,
        health_port=given.health_port,
        workers=given.workers,
        log_level=given.log_level,
    )


def _check_optimization(given: argparse.Namespace) -> None:
    """With an artifact store, all that a Job needs must be there."""
    if given.artifact_store is None:
        return
    needed = (
        ("--signing-key-file", given.signing_key_file), ("--optimizer-workspace", given.optimizer_workspace),
    ) if given.standalone else (
        ("--signing-key-secret", given.signing_key_secret), ("--optimizer-image", given.optimizer_image),
    )  # fmt: skip
    missing = [name for name, value in (*needed, ("--trusted-key-file", given.trusted_key_file)) if not value]
    if missing:
        home = "standalone" if given.standalone else "in a cluster"
        raise Invalid("InvalidSettings", f"--artifact-store needs, {home}, also {', '.join(missing)}")


def _secret(path: Path | None) -> str:
    return "" if path is None else _read(path, "--gateway-secret-file")


def _read(path: Path, option: str) -> str:
    """A small text file, without the white space around it."""
    try:
        text = path.read_text().strip()
    except OSError as error:
        raise Invalid("InvalidSettings", f"cannot read {option}: {error}") from error
    if not text:
        raise Invalid("InvalidSettings", f"{path}, which {option} names, is empty")
    return text
