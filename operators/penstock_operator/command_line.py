"""The operator's settings, read once from its command line."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from penstock.addresses import is_ipv6
from penstock.api.documents import read_yaml
from penstock.api.pod_template import PodTemplate
from penstock.api.pool import ServingPoolSpec
from penstock.api.quantity import is_quantity
from penstock.errors import Invalid
from penstock_operator.flags import parser
from penstock_operator.optimization.job import JobSettings
from penstock_operator.optimization.job_settings import parse_egress
from penstock_operator.pods.trust import TrustedAuthorities
from penstock_operator.pool.raypods import PoolSettings
from penstock_operator.settings import Settings

_KEY_SUFFIX = "signing"
"""Of the names of runs' Secrets."""


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
        trusted=_authorities(given.trusted_ca),
    )


def _authorities(text: str | None) -> TrustedAuthorities | None:
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
        trusted=_authorities(given.trusted_ca),
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
