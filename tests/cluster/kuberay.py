"""The KubeRay operator in a cluster: its CRDs, its rights and itself as a pod, from the module that it is built from."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from images.archive import ImageConfig, write_scratch_image
from tests.cluster import crds
from tests.cluster.binary import Report, build, cache_directory, locked, module_folder
from tests.cluster.tools import KUBERAY_MODULE, KUBERAY_VERSION, PROGRAMS

NAMESPACE = "kuberay-system"
IMAGE = f"docker.io/penstock-test/kuberay:{KUBERAY_VERSION}"
_OVERLAY = {
    "apiVersion": "kustomize.config.k8s.io/v1beta1",
    "kind": "Kustomization",
    "namespace": NAMESPACE,
    "resources": ["rbac", "manager", "namespace.json"],
    "images": [{"name": "kuberay/operator", "newName": IMAGE.rpartition(":")[0], "newTag": KUBERAY_VERSION}],
}
_CONTAINER = "/spec/template/spec/containers/0"
_PATCH = [
    # Smaller and sooner than upstream's, as tests wait for it.
    {
        "op": "replace",
        "path": f"{_CONTAINER}/resources",
        "value": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
    },
    {"op": "replace", "path": f"{_CONTAINER}/readinessProbe/initialDelaySeconds", "value": 1},
    {"op": "replace", "path": f"{_CONTAINER}/readinessProbe/periodSeconds", "value": 1},
    # A machine that is busy with its tests is slow, not dead.
    {"op": "add", "path": f"{_CONTAINER}/livenessProbe/timeoutSeconds", "value": 20},
    {"op": "add", "path": f"{_CONTAINER}/readinessProbe/timeoutSeconds", "value": 20},
]


def image_archive(report: Report) -> Path:
    """The operator's image, made where it is not in the cache yet."""
    return program_archive("kuberay", IMAGE, "manager", report)


def program_archive(program: str, image: str, entry: str, report: Report, user: str = "65532:65532") -> Path:
    """An image of one program, made where it is not in the cache yet."""
    binary = build(report, PROGRAMS[program])
    path = cache_directory() / f"{binary.name}.image.tar"
    with locked(cache_directory() / f"{program}.image.lock", report):
        if not path.exists():
            with tempfile.TemporaryDirectory() as tree:
                shutil.copy(binary, Path(tree, entry))
                config = ImageConfig(entrypoint=(f"/{entry}",), user=user)
                write_scratch_image(path, image, Path(tree), config)
    return path


def manifests(report: Report) -> Path:
    """A folder with upstream's manifests, copied where they are not in the cache yet, and a kustomization over them."""
    folder = cache_directory() / f"kuberay-manifests-{KUBERAY_VERSION}"
    with locked(cache_directory() / "kuberay-manifests.lock", report):
        if not folder.exists():
            source = module_folder(PROGRAMS["kuberay"], KUBERAY_MODULE) / "config"
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            for part in ("crd", "rbac", "manager"):
                shutil.copytree(source / part, partial / part, copy_function=shutil.copyfile)
            for each in (partial, *(path for path in partial.rglob("*") if path.is_dir())):
                each.chmod(0o755)
            partial.rename(folder)
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        (folder / "namespace.json").write_text(json.dumps(namespace))
        target = {"kind": "Deployment", "name": "kuberay-operator"}
        overlay = _OVERLAY | {"patches": [{"target": target, "patch": json.dumps(_PATCH)}]}
        (folder / "kustomization.yaml").write_text(json.dumps(overlay))
    return folder


def install(kubectl: crds.Kubectl, report: Report) -> None:
    """Apply CRDs, rights and the operator, and wait until it is up. Its image must be on the nodes."""
    folder = manifests(report)
    # An operator that starts before its kinds are served looks again only after ten seconds.
    crds.serve(kubectl, folder / "crd" / "bases")
    kubectl("apply", "--server-side", "--force-conflicts", "-k", str(folder))
    kubectl("-n", NAMESPACE, "rollout", "status", "deployment/kuberay-operator", "--timeout=180s")
