"""Benchmarks in a real cluster: all of them, or those named on the command line.

first-answer   from helm install, and from kubectl apply, to a model's first answer
faults         a steady load while parts come and go
scale          a thousand deployments on a thousand nodes, beside no cluster but a control plane of its own
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from pathlib import Path

from tests.benchmarks import cluster_scale
from tests.benchmarks.parts import dense_model, request_body
from tests.cluster.other_clusters import open_cluster
from tests.cluster.tools import say
from tests.e2e.cluster.installation import Installation, build_images
from tests.e2e.cluster.model_store import model_store

_IN_CLUSTER = ("first-answer", "faults")
_NAMES = (*_IN_CLUSTER, "scale")


def main() -> int:
    """Run what is asked for."""
    names = sys.argv[1:] or list(_NAMES)
    if set(names) - set(_NAMES):
        print(__doc__, file=sys.stderr)
        return 2
    inside = [each for each in _IN_CLUSTER if each in names]
    if inside:
        _measure_in_cluster(inside)
    if "scale" in names:
        cluster_scale.main()
    return 0


def _measure_in_cluster(names: list[str]) -> None:
    cluster = open_cluster(os.environ.get("PENSTOCK_CLUSTER", "own"), say)
    try:
        installation = Installation(cluster, build_images(cluster, say))
        installation.upgrade()
        with tempfile.TemporaryDirectory() as folder, model_store(cluster) as store:
            body = Path(folder, "body.json")
            body.write_bytes(request_body())
            uri = store.upload(dense_model(Path(folder, "model.onnx"), (64, 32, 10)), "dense")
            for name in names:
                module = importlib.import_module(f"tests.benchmarks.cluster.{name.replace('-', '_')}")
                module.main(installation, store, uri, body)
        installation.uninstall()
    finally:
        cluster.stop()


if __name__ == "__main__":
    sys.exit(main())
