"""The chart's life on a real API server: installed, upgraded, rolled back, uninstalled, by a real Helm."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart.helm import CHART, EVERYTHING, NAMESPACE, HelmFailedError, Object, helm, render
from tests.cluster.controlplane import ControlPlane
from tests.telling import telling

pytestmark = pytest.mark.apiserver

_PROFILE = "files/profiles/small.yaml"
_PLAIN = EVERYTHING | {
    "metrics": {"dashboards": {"enabled": True}},
    "gateway": EVERYTHING["gateway"] | {"httpRoute": {"enabled": False}},
}
"""Everything but the Prometheus operator's and the Gateway API's kinds, which this API server does not have."""
_MADE_BY_THE_SERVER = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "uid")


class Release:
    """One release of the chart in a cluster."""

    def __init__(self, cluster: ControlPlane) -> None:
        self.cluster = cluster

    def helm(self, *arguments: str, values: Object | None = None) -> str:
        return helm(*arguments, "-n", NAMESPACE, values=values, kubeconfig=self.cluster.kubeconfig)

    def install(self, chart: Path, values: Object | None = None) -> str:
        return self.helm("install", "penstock", str(chart), "--create-namespace", values=values)

    def upgrade(self, chart: Path, values: Object | None = None) -> str:
        return self.helm("upgrade", "penstock", str(chart), values=values)

    def get(self, kind: str, name: str) -> Any:
        return json.loads(self.cluster.kubectl("get", kind, name, "-n", NAMESPACE, "-o", "json").stdout)

    def objects(self) -> dict[str, Object]:
        """Every object of the release as it is, without what the API server notes of its own."""
        kinds = sorted({_resource(each) for each in render(_PLAIN).objects})
        found = self.cluster.kubectl(
            "get", ",".join(kinds), "-n", NAMESPACE, "-l", "app.kubernetes.io/part-of=penstock", "-o", "json"
        )
        return {
            f"{each['kind']}/{each['metadata']['name']}": _plain(each) for each in json.loads(found.stdout)["items"]
        }


def _resource(found: Object) -> str:
    group = found["apiVersion"].partition("/")[0] if "/" in found["apiVersion"] else ""
    return f"{found['kind']}.{group}" if group else str(found["kind"])


def _plain(found: Object) -> Object:
    metadata = {key: value for key, value in found["metadata"].items() if key not in _MADE_BY_THE_SERVER}
    metadata.get("annotations", {}).pop("deployment.kubernetes.io/revision", None)
    return {key: value for key, value in found.items() if key not in {"metadata", "status"}} | {"metadata": metadata}


@pytest.fixture(scope="module")
def next_chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart's next version: another profile, one object more, one less."""
    folder = tmp_path_factory.mktemp("next") / "penstock"
    shutil.copytree(CHART, folder)
    meta = yaml.safe_load((folder / "Chart.yaml").read_text()) | {"version": "0.2.0", "appVersion": "0.2.0"}
    (folder / "Chart.yaml").write_text(yaml.safe_dump(meta))
    profile = yaml.safe_load((folder / _PROFILE).read_text())
    profile["spec"]["search"]["budgetMinutes"] = 45
    (folder / _PROFILE).write_text(yaml.safe_dump(profile))
    (folder / "templates" / "tenant-roles.yaml").unlink()
    (folder / "templates" / "new.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: penstock-new\n  namespace: {{ .Release.Namespace }}\n"
        '  labels: {{- include "penstock.labels" . | nindent 4 }}\n'
    )
    return folder


@pytest.fixture(scope="module")
def release(control_plane_binary: Path) -> Iterator[Release]:
    """A cluster of its own: the chart's objects belong to no namespace, and the CRDs are to be installed by Helm."""
    with ControlPlane(control_plane_binary) as cluster:
        yield Release(cluster)


def _images(release: Release) -> set[str]:
    return {
        release.get("deployment", name)["spec"]["template"]["spec"]["containers"][0]["image"]
        for name in ("penstock-operator", "penstock-gateway")
    }


def test_install_upgrade_roll_back_and_uninstall(release: Release, next_chart: Path) -> None:
    notes = release.install(CHART)
    assert "kubectl create namespace vision" in notes
    installed = release.objects()
    secret = release.get("secret", "penstock-gateway-secret")["data"]
    assert len(secret["secret"]) >= 32
    assert set(installed) >= {f"{each['kind']}/{each['metadata']['name']}" for each in render().objects} - {
        "Pod/penstock-test",
        "Job/penstock-deployments-or-pools-are-still-there",
    }

    assert not _differences(release), "what is rendered is what is there, with all that the API server adds"
    assert "replicas: 3" in _differences(release, {"operator": {"replicas": 3}}), "a difference would be seen"

    for openshift in (False, True):
        assert not _refused_by_pod_security(release, openshift=openshift)
    assert _refused_by_pod_security(release, {"privileged": True}, openshift=False), "the namespace does refuse"

    release.upgrade(CHART)
    assert release.objects() == installed, "an upgrade to the same version changes nothing"

    release.upgrade(next_chart)
    upgraded = release.objects()
    assert _images(release) == {"penstock/operator:0.2.0", "penstock/gateway:0.2.0"}
    assert release.get("clusteroptimizationprofile", "small")["spec"]["search"]["budgetMinutes"] == 45
    assert set(upgraded) - set(installed) == {"ConfigMap/penstock-new"}
    assert set(installed) - set(upgraded) == {each for each in installed if _is_tenants(each)}
    assert release.get("secret", "penstock-gateway-secret")["data"] == secret

    release.helm("rollback", "penstock", "1")
    assert release.objects() == installed
    assert release.get("secret", "penstock-gateway-secret")["data"] == secret

    release.helm("uninstall", "penstock", "--no-hooks")
    assert {each for each in release.objects() if "Profile/" not in each} == {"Secret/penstock-gateway-secret"}
    assert release.get("crd", "inferencedeployments.penstock.dev")

    release.install(CHART, _PLAIN)
    assert release.get("secret", "penstock-gateway-secret")["data"] == secret, "a new installation finds the secret"
    assert release.get("horizontalpodautoscaler", "penstock-gateway")
    release.helm("uninstall", "penstock", "--no-hooks")


def _differences(release: Release, values: Object | None = None) -> str:
    """What `kubectl diff`, and so Argo CD, finds between the chart as it is rendered without the cluster and what is there."""
    # The secret is another in each rendering, which is why Argo CD is to be given one; hooks come and go.
    rendered = [
        each
        for each in render(values).objects
        if each["kind"] != "Secret" and "helm.sh/hook" not in each["metadata"].get("annotations", {})
    ]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": rendered})
    done = release.cluster.kubectl("diff", "--server-side", "--force-conflicts", "-f", "-", input=text, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def _refused_by_pod_security(release: Release, container: Object | None = None, *, openshift: bool) -> str:
    """What a namespace under the restricted profile has against the release's pods; with this added to their containers'."""
    ids: Object = {"runAsUser": None, "runAsGroup": None, "fsGroup": None} if openshift else {}
    pods = render({"podSecurityContext": ids, "containerSecurityContext": container or {}}).pods()
    release.cluster.kubectl("label", "ns", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    made = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"tried-{number}", "namespace": NAMESPACE},
            "spec": spec,
        }
        for number, spec in enumerate(pods.values())
    ]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": made})
    done = release.cluster.kubectl("create", "--dry-run=server", "-f", "-", input=text, check=False)
    return str(done.stderr)


def _is_tenants(name: str) -> bool:
    tenants = {"penstock-edit", "penstock-view", "penstock-admin", "penstock-profiles-view", "penstock-platform"}
    return name.partition("/")[2] in tenants


def test_gateway_autoscaling_that_is_switched_on_and_off_changes_no_number(release: Release) -> None:
    release.install(CHART, {"gateway": {"replicas": 6}})
    begun = release.get("deployment", "penstock-gateway")["metadata"]["resourceVersion"]

    on = {"enabled": True, "minReplicas": 4, "maxReplicas": 12}
    release.upgrade(CHART, {"gateway": {"autoscaling": on}})
    release.cluster.kubectl("scale", "deployment/penstock-gateway", "-n", NAMESPACE, "--replicas=12")  # as an HPA does
    release.upgrade(CHART, {"gateway": {"replicas": 5, "autoscaling": on}})
    release.upgrade(CHART, {"gateway": {"autoscaling": {"enabled": False}}})
    assert not release.cluster.kubectl("get", "hpa", "-n", NAMESPACE, "-o", "name").stdout
    assert _wanted_since(release, begun) == [6, 12], "and never one of Kubernetes' own"

    release.upgrade(CHART, {"gateway": {"replicas": 3}})
    release.upgrade(CHART, {"gateway": {"autoscaling": on}})
    assert _wanted_since(release, begun) == [6, 12, 3, 4], "what was asked for, and the least"
    release.helm("uninstall", "penstock", "--no-hooks")


def _wanted_since(release: Release, version: str) -> list[int]:
    """Every number of gateways that the API server was told since, 6 at first, repetitions left out."""
    numbers = [6]
    asked = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "1"}
    with release.cluster.client() as client:
        answer = client.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments", params=asked, timeout=30.0)
    for line in answer.raise_for_status().text.splitlines():
        told = json.loads(line)["object"]
        wanted = told["spec"]["replicas"]
        if told["metadata"]["name"] == "penstock-gateway" and wanted != numbers[-1]:
            numbers.append(wanted)
    return numbers


def ray_clusters(*fields: str, group: tuple[str, ...] = ("labels",)) -> Object:
    """KubeRay's definition as one release or another has it: with these fields, of the spec and of worker groups."""
    items = {"type": "object", "properties": {each: {"type": "string"} for each in ("groupName", *group)}}
    spec = {each: {"type": "string"} for each in fields} | {"workerGroupSpecs": {"type": "array", "items": items}}
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": spec}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": "RayCluster", "listKind": "RayClusterList", "plural": "rayclusters", "singular": "raycluster"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "rayclusters.ray.io"},
        "spec": {"group": "ray.io", "names": names, "scope": "Namespaced", "versions": [version]},
    }


def test_a_kuberay_that_is_too_old_is_refused_with_what_to_do(release: Release) -> None:
    rendered = ("template", "penstock", str(CHART), "--dry-run=server")
    for definition, old in (
        (ray_clusters("rayVersion"), True),
        (ray_clusters("authOptions", group=()), True),
        (ray_clusters("authOptions"), False),
    ):
        release.cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=json.dumps(definition))
        release.cluster.kubectl("wait", "--for=condition=Established", "crd/rayclusters.ray.io")
        with pytest.raises(HelmFailedError, match=telling("KubeRay 1.6 rayclusters.ray.io")) if old else nullcontext():
            release.helm(*rendered)
    release.cluster.kubectl("delete", "crd", "rayclusters.ray.io")


def test_former_crds_are_refused_with_what_to_do(release: Release, next_chart: Path) -> None:
    release.install(CHART)
    path = next_chart / "crds" / "penstock.dev_tenantquotas.yaml"
    changed = yaml.safe_load(path.read_text())
    schema = changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    schema["properties"]["soft"] = {"type": "boolean"}
    path.write_text(yaml.safe_dump(changed))
    with pytest.raises(HelmFailedError, match=telling("tenantquotas.penstock.dev 0.2.0 `helm show crds")):
        release.upgrade(next_chart)
    release.cluster.kubectl(
        "apply", "--server-side", "--force-conflicts", "-f", "-", input=helm("show", "crds", str(next_chart))
    )
    release.upgrade(next_chart)
    release.helm("uninstall", "penstock", "--no-hooks")
    with pytest.raises(HelmFailedError, match=telling("tenantquotas.penstock.dev 0.1.0")):
        release.install(CHART)  # those of the last release outlived it
