"""Programs of others that tests use, built from Go modules once: helm, kwok, linters, a Collector, and the cluster's
own parts.

python -m tests.cluster.tools helm    build it where needed, and print its path
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.cluster.binary import FOLDER, Program, Report, build

_MODULES = FOLDER / "modules"
_HELM = "helm.sh/helm/v3"
KUBERAY_MODULE = "github.com/ray-project/kuberay/ray-operator"
KUBERAY_VERSION = "v1.6.0"
KIND_MODULE = "sigs.k8s.io/kind"

PROGRAMS = {
    program.name: program
    for program in (
        Program("kuberay", _MODULES / "kuberay", f"the KubeRay operator {KUBERAY_VERSION}", KUBERAY_MODULE),
        Program("coredns", _MODULES / "coredns", "CoreDNS"),
        Program("policies", _MODULES / "policies", "kube-network-policies"),
        Program("pause", _MODULES / "pause", "the pause program"),
        Program("otelcol", _MODULES / "otelcol", "the OpenTelemetry Collector"),
        Program("monitors", _MODULES / "monitors", "the Prometheus operator's types"),
        Program(
            "helm", _MODULES / "helm", "helm", f"{_HELM}/cmd/helm",
            (
                (f"{_HELM}/internal/version.version", "v3.20.0"),
                (f"{_HELM}/pkg/chartutil.k8sVersionMajor", "1"),
                (f"{_HELM}/pkg/chartutil.k8sVersionMinor", "35"),
            ),
        ),
        Program("kind", _MODULES / "kind", "kind", KIND_MODULE),
        Program("kwok", _MODULES / "kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok"),
        Program("kube-score", _MODULES / "kube-score", "kube-score", "github.com/zegl/kube-score/cmd/kube-score"),
        Program("kubeconform", _MODULES / "kubeconform", "kubeconform", "github.com/yannh/kubeconform/cmd/kubeconform"),
    )
}  # fmt: skip


def say(line: str) -> None:
    """Show a line of progress on standard error."""
    print(line, file=sys.stderr, flush=True)


def tool(name: str, report: Report = say) -> Path:
    """A program's binary, built where it is not in the cache yet.

    Raises:
        BuildFailedError: there is no Go to be had, or it failed.
        KeyError: there is no such program; `PROGRAMS` names them.
    """
    return build(report, PROGRAMS[name])


if __name__ == "__main__":
    for each in sys.argv[1:] or sorted(PROGRAMS):
        print(tool(each))
