"""Our merge of pod templates beside kubectl's own strategic merge patch."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from penstock_operator.pods.merge import merge

pytestmark = pytest.mark.apiserver

BASE: dict[str, Any] = {
    "metadata": {"name": "pod", "labels": {"a": "1"}},
    "spec": {
        "securityContext": {"runAsUser": 1000, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "nodeSelector": {"arch": "amd64"},
        "imagePullSecrets": [{"name": "registry"}],
        "hostAliases": [{"ip": "192.0.2.1", "hostnames": ["a"]}],
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "10Gi"}}, {"name": "cache", "emptyDir": {"sizeLimit": "1Gi"}}],
        "containers": [
            {
                "name": "ray",
                "image": "r:1",
                "env": [{"name": "HOME", "value": "/tmp"}, {"name": "A", "value": "1"}],
                "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                "ports": [{"containerPort": 80, "name": "http"}],
                "securityContext": {"capabilities": {"drop": ["ALL"]}},
            }
        ],
    },
}  # fmt: skip


def ray(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "ray", **fields}]}}


PATCHES: list[tuple[str, dict[str, Any]]] = [
    ("labels and annotations", {"metadata": {"labels": {"b": "2", "a": "3"}, "annotations": {"c": "4"}}}),
    ("a scalar", {"spec": {"runtimeClassName": "nvidia", "serviceAccountName": "s"}}),
    ("a field that is taken out", {"spec": {"securityContext": {"runAsUser": None, "fsGroup": 5}}}),
    ("a label of nodes", {"spec": {"nodeSelector": {"zone": "z", "arch": None}}}),
    ("a variable, another value, and one from a Secret",
     ray(env=[{"name": "A", "value": "2"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}])),
    ("a sidecar", {"spec": {"containers": [{"name": "proxy", "image": "p"}]}}),
    ("limits beside requests", ray(resources={"limits": {"cpu": "4"}, "requests": {"memory": "1Gi"}})),
    ("a mount, and another volume at a path that is taken",
     ray(volumeMounts=[{"name": "d", "mountPath": "/d"}, {"name": "cache", "mountPath": "/tmp"}])),
    ("a volume, and a size", {"spec": {"volumes": [{"name": "d", "configMap": {"name": "c"}}, {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}]}}),
    ("a list that is taken as a whole", ray(securityContext={"capabilities": {"drop": ["NET_RAW"], "add": ["SYS_PTRACE"]}})),
    ("pull secrets", {"spec": {"imagePullSecrets": [{"name": "other"}, {"name": "registry"}]}}),
    ("names of hosts", {"spec": {"hostAliases": [{"ip": "192.0.2.2", "hostnames": ["b"]}]}}),
    ("another spread", {"spec": {"topologySpreadConstraints": [{"topologyKey": "host", "maxSkew": 2, "whenUnsatisfiable": "DoNotSchedule"}]}}),
    ("a port", ray(ports=[{"containerPort": 81}])),
    ("affinity, which was not there", {"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}}}),
    ("variables from Secrets", ray(envFrom=[{"secretRef": {"name": "s"}}])),
    ("an init container", {"spec": {"initContainers": [{"name": "i", "image": "i"}]}}),
]  # fmt: skip


@pytest.mark.parametrize("patch", [row[1] for row in PATCHES], ids=[row[0] for row in PATCHES])
def test_merged_as_kubectl_merges(patch: dict[str, Any], control_plane_binary: Path, tmp_path: Path) -> None:
    pod = tmp_path / "pod.json"
    pod.write_text(json.dumps({"apiVersion": "v1", "kind": "Pod", **BASE}))
    command = ["kubectl", "patch", "--local", "--type=strategic", "-f", str(pod), "-p", json.dumps(patch), "-o", "json"]
    done = subprocess.run([str(control_plane_binary), *command], capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout)
    ours = merge(BASE, patch)
    assert _unordered(ours["spec"]) == _unordered(theirs["spec"])
    assert ours["metadata"] == theirs["metadata"]
    # kubectl may put what is new first; KubeRay takes the first container for Ray's.
    assert ours["spec"]["containers"][0]["name"] == "ray"


def _unordered(value: Any) -> Any:
    """Lists of objects in one order."""
    if isinstance(value, Mapping):
        return {key: _unordered(each) for key, each in value.items()}
    if isinstance(value, list):
        return sorted((_unordered(each) for each in value), key=lambda each: json.dumps(each, sort_keys=True))
    return value
