"""The operator's settings, read once from the command line."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from penstock.addresses import is_ipv6
from penstock.api.access import Authentication
from penstock.api.documents import read_yaml
from penstock.api.pod_template import PodTemplate
from penstock.api.pool import ServingPoolSpec
from penstock.api.quantity import is_quantity
from penstock.errors import Invalid
from penstock.serving.settings import DEFAULT_MAX_BODY_BYTES
from penstock_operator.optimization.job import JobSettings
from penstock_operator.optimization.job_settings import DEFAULT_DISK, parse_egress
from penstock_operator.pods.trust import TrustedAuthorities
from penstock_operator.pool.raypods import PoolSettings

_LEVELS = ("debug", "info", "warning", "error")
_KEY_SUFFIX = "signing"
"""Of the names of runs' Secrets."""


@dataclass(frozen=True)
class Settings:
    """How this operator runs."""

    kubeconfig: Path | None = None
    context: str | None = None
    standalone: Path | None = None
    """File of the embedded store; None: a real Kubernetes API."""
    gateways: tuple[str, ...] = ()
    """Base URLs of the gateway agents' control API, in the clear."""
    gateways_over_tls: tuple[str, ...] = ()
    """Likewise over TLS, by certificates of the platform's own: for replicas, and without the former for this operator, too."""
    gateway_secret: str = ""
    default_authentication: Authentication = Authentication.ANONYMOUS
    """Of deployments whose `spec.access` does not say."""
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    """Of a request: what replicas take."""
    replica_host: str | None = None
    """Where replicas listen; None: their node's address."""
    trusted_keys: tuple[str, ...] = ()
    """Public keys in PEM: an optimized model that a deployment names itself must be signed by one of them."""
    artifact_secret: str | None = None
    """In deployments' namespaces: by which replicas read optimized models."""
    jobs: JobSettings | None = None
    """How models are optimized; None: they are not, and deployments with a profile say so."""
    job_folder: Path | None = None
    """Where Jobs that are processes of this machine keep locks and logs; None: Kubernetes runs Jobs."""
    pools: PoolSettings | None = None
    """How managed pools are made; None: there is no Kubernetes to make them in."""
    default_pool: ServingPoolSpec | None = None
    """Of the pool that a namespace without one gets at its first deployment; None: it gets none."""
    namespaces: tuple[str, ...] = ()
    """What to watch; empty: all namespaces."""
    lease_name: str = "penstock-operator"
    lease_namespace: str = "penstock-system"
    identity: str = ""
    health_host: str = "127.0.0.1"
    """`*`: every address of either family."""
    health_port: int = 8082
    pod_address: str = ""
    """The operator's own in Kubernetes, which has the family that Services have where nothing else is said."""
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
    result.add_argument(
        "--gateway-over-tls", action="append", default=[], metavar="URL",
        help="a gateway agent's --control-tls-port, for replicas that start from now on, which then speak TLS; without --gateway "
        "for the operator, too; repeatable",
    )  # fmt: skip
    result.add_argument("--gateway-secret-file", type=Path, help="file with the gateways' secret")
    result.add_argument(
        "--default-authentication", type=Authentication, choices=list(Authentication),
        default=Settings.default_authentication,
        help="of deployments whose spec.access does not say; the gateways should be given the same",
    )  # fmt: skip
    result.add_argument(
        "--max-body-bytes", type=int, default=Settings.max_body_bytes,
        help="that replicas take of a request; the gateways should be given the same",
    )  # fmt: skip
    result.add_argument("--replica-host", help="address for replicas to listen on; default: their node's")
    _add_pools(result)
    _add_optimization(result)
    result.add_argument("--namespace", action="append", default=[], help="watch only this one; repeatable")
    result.add_argument("--lease-name", default=Settings.lease_name)
    result.add_argument("--lease-namespace", default=Settings.lease_namespace)
    result.add_argument("--identity", help="who holds the lease; default: host name and process id")
    result.add_argument(
        "--health-host", default=Settings.health_host, help="address for /healthz, /readyz, /metrics; *: all"
    )
    result.add_argument("--health-port", type=int, default=Settings.health_port)
    result.add_argument("--workers", type=int, default=Settings.workers, help="reconciles at a time")
    result.add_argument("--log-level", choices=_LEVELS, default=Settings.log_level)
    return result


def _add_pools(result: argparse.ArgumentParser) -> None:
    group = result.add_argument_group("managed pools")
    group.add_argument("--runtime-image", metavar="IMAGE", default="", help="of pools that name none")
    group.add_argument(
        "--runtime-gpu-image", metavar="IMAGE", default="",
        help="of their workers with NVIDIA's GPUs; of the same Ray and Python as the other; default: that one",
    )  # fmt: skip
    group.add_argument(
        "--pool-env", action="append", default=[], metavar="NAME=VALUE",
        help="variable of all pods of pools, such as OTEL_EXPORTER_OTLP_ENDPOINT=URL; repeatable",
    )  # fmt: skip
    group.add_argument(
        "--image-architecture", action="append", default=[], metavar="NAME",
        help="that this release's images were built for, by Kubernetes' names (amd64, arm64): pods of pools that name no image, and "
        "Jobs, keep to such nodes; repeatable; none: any",
    )  # fmt: skip
    group.add_argument(
        "--pod-address", metavar="IP", default="",
        help="the operator's own; where it is IPv6, the Ray heads of pools are reached by that, and listen there",
    )  # fmt: skip
    group.add_argument(
        "--cloud-identity", action="store_true",
        help="let pods of pools and Jobs reach the addresses at which clouds give pods an identity of their own",
    )  # fmt: skip
    group.add_argument(
        "--pool-template-file", type=Path, metavar="FILE",
        help="a podTemplate (YAML, as in a ServingPool) that is laid over all pods of pools and Jobs, under the pools' own",
    )  # fmt: skip
    group.add_argument(
        "--trusted-ca", metavar="CONFIGMAP[/KEY]",
        help="ConfigMap in the models' namespaces with certificates of authorities (PEM, under ca.crt where no key is named) that "
        "workers and Jobs trust beside those of their images; where a namespace has none, they start without",
    )  # fmt: skip
    group.add_argument(
        "--system-namespace", help="where operator and gateways run, for pools' NetworkPolicies; default: the lease's"
    )
    group.add_argument(
        "--default-pool-file", type=Path, metavar="FILE",
        help="spec of a ServingPool (YAML) that a namespace without one gets at its first deployment",
    )  # fmt: skip


def _add_optimization(result: argparse.ArgumentParser) -> None:
    group = result.add_argument_group("optimization")
    group.add_argument("--artifact-store", metavar="URI", help="for optimized models and reports; none: no profiles")
    group.add_argument(
        "--trusted-key-file", type=Path, action="append", default=[],
        help="public key (PEM) that optimized models may be signed by which deployments name themselves; those that runs "
        "make are signed by each run's own; repeatable",
    )  # fmt: skip
    here = result.add_argument_group("optimization on this machine (with --standalone)")
    here.add_argument("--signing-key-file", type=Path, help="private key (PEM)")
    here.add_argument("--optimizer-workspace", type=Path, metavar="FOLDER", help="keeps what searches found")
    pods = result.add_argument_group("optimization in pods")
    pods.add_argument("--optimizer-image", metavar="IMAGE", help="container image of the Jobs")
    pods.add_argument(
        "--optimizer-gpu-image", metavar="IMAGE", help="of those that get NVIDIA's GPUs; default: as of the others"
    )
    pods.add_argument(
        "--optimizer-workspace-claim", metavar="NAME", help="PersistentVolumeClaim that keeps what searches found"
    )
    pods.add_argument(
        "--optimizer-disk", metavar="QUANTITY", default=DEFAULT_DISK,
        help="ephemeral-storage that a Job asks for; default: %(default)s",
    )  # fmt: skip
    pods.add_argument(
        "--model-volume", action="append", default=[], metavar="CLAIM=PATH",
        help="PersistentVolumeClaim with models and data for file://, mounted read-only there; repeatable",
    )  # fmt: skip
    pods.add_argument(
        "--optimizer-env", action="append", default=[], metavar="NAME=VALUE", help="of the Jobs' process; repeatable"
    )
    pods.add_argument("--optimizer-env-secret", metavar="NAME", help="Secret whose keys become such variables")
    pods.add_argument(
        "--optimizer-no-sandbox", action="store_true",
        help="open models that are code where nodes give no user namespaces, too: the Job's pod is then the sandbox",
    )  # fmt: skip
    pods.add_argument(
        "--shared-store", action="store_true",
        help="let searches run with credentials that open other namespaces' parts of the artifact store, too",
    )  # fmt: skip
    pods.add_argument(
        "--artifact-secret", metavar="NAME",
        help="Secret in the models' namespaces with which replicas read the artifact store; default: their pods' own "
        "credentials",
    )  # fmt: skip
    pods.add_argument(
        "--optimizer-queue", metavar="NAME", help="Kueue's LocalQueue that Jobs wait in; a run's own label goes first"
    )
    pods.add_argument(
        "--optimizer-egress", action="append", default=[], metavar="PLACE:PORT",
        help="where Jobs may connect to, beside DNS: a block of addresses or namespace/NAME, as 10.1.0.0/16:443 or "
        "namespace/storage:9000; repeatable; default: port 443 and those of URLs in --optimizer-env, anywhere",
    )  # fmt: skip


def read(arguments: Sequence[str]) -> Settings:
    """The settings that a command line says.

    Raises:
        Invalid: they contradict each other, or the secret cannot be read.
    """
    given = parser().parse_args(arguments)
    if given.standalone and (given.kubeconfig or given.context):
        raise Invalid("InvalidSettings", "--standalone uses no Kubernetes; leave out --kubeconfig and --context")
    if (given.gateway or given.gateway_over_tls) and not given.gateway_secret_file:
        raise Invalid("InvalidSettings", "--gateway needs --gateway-secret-file, the gateways' secret")
    for url in given.gateway_over_tls:
        if not url.startswith("https://"):
            raise Invalid("InvalidSettings", f"--gateway-over-tls {url}: write it as https://HOST:PORT")
    for name, number in (("--workers", given.workers), ("--max-body-bytes", given.max_body_bytes)):
        if number < 1:
            raise Invalid("InvalidSettings", f"{name} must be at least 1")
    return Settings(
        kubeconfig=given.kubeconfig,
        context=given.context,
        standalone=given.standalone,
        gateways=tuple(url.rstrip("/") for url in given.gateway),
        gateways_over_tls=tuple(url.rstrip("/") for url in given.gateway_over_tls),
        gateway_secret=_secret(given.gateway_secret_file),
        default_authentication=given.default_authentication,
        max_body_bytes=given.max_body_bytes,
        # One machine: replicas, gateway and operator meet on loopback.
        replica_host=given.replica_host or ("127.0.0.1" if given.standalone else None),
        trusted_keys=tuple(_read(path, "--trusted-key-file") for path in given.trusted_key_file),
        artifact_secret=given.artifact_secret,
        jobs=_jobs(given),
        job_folder=_job_folder(given.standalone),
        pools=_pools(given),
        default_pool=_default_pool(given.default_pool_file),
        namespaces=tuple(given.namespace),
        lease_name=given.lease_name,
        lease_namespace="default" if given.standalone else given.lease_namespace,
        identity=given.identity or f"{socket.gethostname()}-{os.getpid()}",
        health_host=given.health_host,
        health_port=given.health_port,
        pod_address=given.pod_address,
        workers=given.workers,
        log_level=given.log_level,
    )


def _pools(given: argparse.Namespace) -> PoolSettings | None:
    if given.standalone:
        return None
    return PoolSettings(
        image=given.runtime_image,
        gpu_image=given.runtime_gpu_image,
        system_namespace=given.system_namespace or given.lease_namespace,
        environment=tuple(_pair(each, "--pool-env") for each in given.pool_env),
        artifact_secret=given.artifact_secret,
        architectures=tuple(given.image_architecture),
        ipv6=is_ipv6(given.pod_address),
        template=_template(given.pool_template_file),
        cloud_identity=given.cloud_identity,
        trusted=_trusted(given.trusted_ca),
    )


def _trusted(text: str | None) -> TrustedAuthorities | None:
    if not text:
        return None
    name, _, key = text.partition("/")
    return TrustedAuthorities(name, key) if key else TrustedAuthorities(name)


def _template(path: Path | None) -> PodTemplate | None:
    if path is None:
        return None
    try:
        return PodTemplate.model_validate(read_yaml(_read(path, "--pool-template-file")))
    except (yaml.YAMLError, ValueError) as error:
        raise Invalid("InvalidSettings", f"{path} is no podTemplate: {error}") from error


def _default_pool(path: Path | None) -> ServingPoolSpec | None:
    if path is None:
        return None
    try:
        content = read_yaml(_read(path, "--default-pool-file"))
        return ServingPoolSpec.model_validate(content)
    except (yaml.YAMLError, ValueError) as error:
        raise Invalid("InvalidSettings", f"{path} is no spec of a ServingPool: {error}") from error


def _job_folder(store: Path | None) -> Path | None:
    """Beside the embedded store."""
    return None if store is None else (store if store.is_dir() else store.parent) / "jobs"


def _jobs(given: argparse.Namespace) -> JobSettings | None:
    """With an artifact store, all that a Job needs must be there."""
    if given.artifact_store is None:
        return None
    needed = (
        ("--signing-key-file", given.signing_key_file), ("--optimizer-workspace", given.optimizer_workspace),
        ("--trusted-key-file", given.trusted_key_file),
    ) if given.standalone else (
        # Runs' keys follow from it.
        ("--gateway-secret-file", given.gateway_secret_file), ("--optimizer-image", given.optimizer_image),
    )  # fmt: skip
    missing = [name for name, value in needed if not value]
    if missing:
        home = "with --standalone" if given.standalone else "in a cluster"
        raise Invalid("InvalidSettings", f"--artifact-store needs, {home}, also {', '.join(missing)}")
    environment = tuple(_pair(each, "--optimizer-env") for each in given.optimizer_env)
    if given.standalone:
        return JobSettings(
            store=given.artifact_store,
            signing_key=str(given.signing_key_file.absolute()),
            workspace=str(given.optimizer_workspace.absolute()),
            python=sys.executable,
            environment=environment,
        )
    return JobSettings(
        store=given.artifact_store,
        signing_key="",
        image=given.optimizer_image,
        gpu_image=given.optimizer_gpu_image,
        architectures=tuple(given.image_architecture),
        signing_key_secret=_KEY_SUFFIX,
        workspace_claim=given.optimizer_workspace_claim,
        model_volumes=tuple(_pair(each, "--model-volume") for each in given.model_volume),
        environment=environment,
        environment_secret=given.optimizer_env_secret,
        cloud_identity=given.cloud_identity,
        disk=_quantity(given.optimizer_disk, "--optimizer-disk"),
        template=_template(given.pool_template_file),
        trusted=_trusted(given.trusted_ca),
        shared_store=given.shared_store,
        sandbox=not given.optimizer_no_sandbox,
        queue=given.optimizer_queue,
        egress=tuple(parse_egress(each) for each in given.optimizer_egress),
    )


def _quantity(text: str, option: str) -> str:
    if not is_quantity(text):
        raise Invalid("InvalidSettings", f"{option} {text}: write a quantity, such as 20Gi")
    return text


def _pair(text: str, option: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise Invalid("InvalidSettings", f"{option} {text}: write it as NAME=VALUE")
    return name, value


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
