"""An S3 server inside the cluster, with models in it."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from images.archive import ImageConfig, write_scratch_image
from tests.cluster.binary import build
from tests.cluster.cluster import Cluster
from tests.cluster.tools import say
from tests.stores import s3_server

_IMAGE = "docker.io/penstock-test/s3:1"
_NAME = "s3"
_PORT = 9000
BUCKET = "models"


@dataclass(frozen=True)
class ModelStore:
    """A bucket that pods read, and this machine writes."""

    cluster: Cluster
    namespace: str

    @property
    def server(self) -> s3_server.S3Server:
        """Where pods find it, and who may use it."""
        return s3_server.S3Server(f"http://{_NAME}.{self.namespace}.svc:{_PORT}")

    def stop(self) -> None:
        """Delete its namespace, without waiting."""
        self.cluster.kubectl("delete", "namespace", self.namespace, "--wait=false")

    def credentials(self) -> dict[str, object]:
        """The Secret that a deployment names to read the bucket."""
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "model-credentials"},
            "stringData": self.server.environment,
        }

    def upload(self, model: Path, name: str) -> str:
        """Put a model's file there; its URI."""
        import s3fs  # noqa: PLC0415 -- takes a second, of each worker that collects these files

        with self.cluster.forward(_NAME, self.namespace, _PORT) as url:
            files = s3fs.S3FileSystem(
                key=self.server.access_key, secret=self.server.secret_key, endpoint_url=url, skip_instance_cache=True,
                client_kwargs={"region_name": "us-east-1"},
            )  # fmt: skip
            files.put_file(str(model), f"{BUCKET}/{name}/{model.name}")
        return f"s3://{BUCKET}/{name}/{model.name}"


@contextmanager
def model_store(cluster: Cluster) -> Iterator[ModelStore]:
    """A server in a namespace of its own, until the block ends."""
    store = start_store(cluster)
    try:
        yield store
    finally:
        store.stop()


def start_store(cluster: Cluster) -> ModelStore:
    """A server in a namespace of its own."""
    with tempfile.TemporaryDirectory() as folder:
        tree, archive = Path(folder, "tree"), Path(folder, "s3.tar")
        tree.mkdir()
        shutil.copy(build(say, s3_server.PROGRAM), tree / "versitygw")
        write_scratch_image(archive, _IMAGE, tree, ImageConfig(entrypoint=("/versitygw",), user="65532:65532"))
        image = cluster.load_image(archive)
    store = ModelStore(cluster, f"store-{secrets.token_hex(3)}")
    cluster.kubectl("create", "namespace", store.namespace)
    cluster.kubectl("apply", "-n", store.namespace, "-f", "-", manifest=_objects(store.server, image))
    cluster.kubectl("rollout", "status", f"deployment/{_NAME}", "-n", store.namespace, "--timeout=120s")
    return store


def _objects(server: s3_server.S3Server, image: str) -> list[dict[str, object]]:
    labels = {"app": _NAME, "e2e.penstock.dev/kept": "yes"}
    container = {
        "name": _NAME,
        "image": image,
        "args": [
            "--port", f"0.0.0.0:{_PORT}", "--access", server.access_key, "--secret", server.secret_key, "--quiet",
            "posix", "--sidecar", "/meta", "/data",
        ],
        "ports": [{"containerPort": _PORT}],
        "readinessProbe": {"tcpSocket": {"port": _PORT}, "periodSeconds": 1},
        # A folder in the server's data is a bucket.
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "bucket", "mountPath": f"/data/{BUCKET}"},
            {"name": "meta", "mountPath": "/meta"},
        ],
    }  # fmt: skip
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {"fsGroup": 65532},
        "containers": [container],
        "volumes": [{"name": name, "emptyDir": {}} for name in ("data", "bucket", "meta")],
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": _NAME},
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": _NAME},
            "spec": {"selector": labels, "ports": [{"port": _PORT}]},
        },
    ]
