"""The chart, rendered and installed by a real Helm, which tests/cluster builds once."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.controlplane import SHORT_LIVED, ControlPlane
from tests.cluster.tools import tool

CHART = Path(__file__).resolve().parents[2] / "charts" / "penstock"
NAMESPACE = "penstock-system"
Object = dict[str, Any]

EVERYTHING: Object = {
    "images": {"registry": "registry.example.com/platform/", "pullSecrets": [{"name": "registry"}]},
    "operator": {
        "priorityClassName": "system-cluster-critical",
        "tolerations": [{"key": "control", "operator": "Exists"}],
        "nodeSelector": {"node-role.kubernetes.io/control-plane": ""},
        "extraEnv": [{"name": "OTEL_BSP_SCHEDULE_DELAY", "value": "200"}],
    },
    "gateway": {
        "autoscaling": {"enabled": True},
        "service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"], "nodePort": 30080},
        "ingress": {"enabled": True, "className": "nginx", "host": "models.example.com", "tlsSecret": "models-tls"},
        "httpRoute": {
            "enabled": True,
            "parentRefs": [{"name": "front", "namespace": "gateways"}],
            "hostnames": ["models.example.com"],
            "timeouts": {"request": "60s"},
        },
        "pathPrefix": "/models",
        "tls": {"secretName": "gateway-tls", "clientCAConfigMap": "clients"},
        "replicaTLS": "Required",
        "http2": False,
        "refuseFormerTokens": True,
        "extraEnv": [{"name": "OTEL_BSP_SCHEDULE_DELAY", "value": "200"}],
    },
    "access": {
        "anonymous": "ByRight",
        "allowPrivateIssuers": True,
        "issuerCertificates": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    },
    "cost": {"prices": {"currency": "EUR", "cpuHour": 0.03, "acceleratorHours": {"*": 1.5}}},
    "proxy": {"https": "http://proxy.example.com:3128", "noProxy": ["minio.storage"]},
    "trustedCA": {"configMap": "company"},
    "poolEnv": {"HF_ENDPOINT": "https://hub.example.com"},
    "poolTemplate": {"metadata": {"labels": {"example.com/cost-center": "42"}}, "spec": {"runtimeClassName": "gvisor"}},
    "networkPolicy": {
        "poolCloudIdentity": True,
        "clients": [{"namespaceSelector": {"matchLabels": {"clients": "yes"}}}],
        "agents": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
    },
    "metrics": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "alerts": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboards": {"enabled": True},
    },
    "collector": {"enabled": True, "image": "registry.example.com/otel/opentelemetry-collector:0.140.0"},
    "optimization": {
        "artifactStore": "s3://models/penstock",
        "operatorEnvSecret": "store-credentials",
        "trustedKeys": ["-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"],
        "jobEnvSecret": "store-credentials",
        "sharedStore": True,
        "sandbox": "Pod",
        "replicaSecret": "store-reader",
        "jobEnv": {"AWS_ENDPOINT_URL": "http://minio.storage:9000"},
        "jobEgress": ["namespace/storage:9000"],
        "jobQueue": "searches",
        "workspaceClaim": "searches",
        "modelVolumes": {"models": "/models"},
    },
}
"""Values that turn on whatever the chart can do."""


class HelmFailedError(Exception):
    """Helm's own words."""


def helm(*arguments: str, values: Object | None = None, kubeconfig: Path | None = None) -> str:
    """Run Helm, with values of the chart where some are given; its standard output.

    Raises:
        HelmFailedError: it ended with another exit status than 0.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock" / "helm-home"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        # Nothing without a kubeconfig may reach the user's own cluster.
        "KUBECONFIG": str(kubeconfig or os.devnull),
        **SHORT_LIVED,
    }
    options = [] if values is None else ["--values", "-"]
    done = subprocess.run(
        [str(tool("helm")), *arguments, *options],
        input=json.dumps(values), capture_output=True, text=True, timeout=120, check=False, env=environment,
    )  # fmt: skip
    if done.returncode != 0:
        raise HelmFailedError(f"helm {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


@dataclass(frozen=True)
class Rendered:
    """What the chart makes of some values."""

    text: str = field(repr=False)
    objects: tuple[Object, ...]

    def one(self, kind: str, name: str) -> Object:
        """The object of this kind and name."""
        (found,) = (each for each in self.objects if (each["kind"], each["metadata"]["name"]) == (kind, name))
        return found

    def all(self, *kinds: str) -> list[Object]:
        """Objects of these kinds."""
        return [each for each in self.objects if each["kind"] in kinds]

    def pods(self) -> dict[str, Object]:
        """Every pod's spec, by kind and name of what makes it."""
        found = {}
        for each in self.objects:
            spec = each.get("spec") or {}
            pod = spec if each["kind"] == "Pod" else (spec.get("template") or {}).get("spec")
            if pod and "containers" in pod:
                found[f"{each['kind']}/{each['metadata']['name']}"] = pod
        return found

    def containers(self) -> list[Object]:
        """Containers of all pods."""
        return [each for pod in self.pods().values() for each in (*pod.get("initContainers", ()), *pod["containers"])]

    def arguments(self, deployment: str) -> list[str]:
        """Arguments of a Deployment's container."""
        found: list[str] = self.one("Deployment", deployment)["spec"]["template"]["spec"]["containers"][0]["args"]
        return found


def render(values: Object | None = None) -> Rendered:
    """The chart without a cluster: its objects in namespace `penstock-system`, hooks among them."""
    return _render(json.dumps(values or {}, sort_keys=True))


def package(folder: Path) -> Path:
    """The chart as a release has it: one file, made in `folder`."""
    helm("package", str(CHART), "--destination", str(folder))
    (archive,) = folder.glob("*.tgz")
    return archive


def grant_operator_rights(cluster: ControlPlane, values: Object | None = None) -> None:
    """Give a cluster the operator's namespace, ServiceAccount and rights, and nothing else of the chart."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    rights = render(values).all("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
    policies = render(values).all("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    bounds = [each for each in policies if each["metadata"]["name"] == "penstock-operator-bounds"]
    everything = {"apiVersion": "v1", "kind": "List", "items": [namespace, *rights, *bounds]}
    cluster.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(everything))


@functools.cache
def _render(values: str) -> Rendered:
    text = helm("template", "penstock", str(CHART), "-n", NAMESPACE, values=json.loads(values))
    return Rendered(text, tuple(each for each in yaml.load_all(text, yaml.CSafeLoader) if each))
