"""The flags that the operator takes."""

from __future__ import annotations

import argparse
from pathlib import Path

from penstock.api.access import Authentication
from penstock_operator.optimization.job_settings import DEFAULT_DISK
from penstock_operator.settings import Settings

_LEVELS = ("debug", "info", "warning", "error")


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
