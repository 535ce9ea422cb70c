"""A Redis in a tenant's namespace, for pools whose head may be lost."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from images.archive import ImageConfig, write_scratch_image
from images.debian import download, unpack
from tests.cluster.binary import Report, cache_directory, locked
from tests.cluster.cluster import Cluster

_IMAGE = "docker.io/penstock-test/redis:bookworm"
_NAME = "redis"
_PORT = 6379
ADDRESS = f"{_NAME}:{_PORT}"


def redis_objects(cluster: Cluster, report: Report) -> list[dict[str, object]]:
    """A server that keeps nothing on disk, and its Service; its image is put on the nodes."""
    image = cluster.load_image(_archive(report))
    labels = {"app": _NAME, "e2e.penstock.dev/kept": "yes"}
    container = {
        "name": _NAME,
        "image": image,
        "args": ["--protected-mode", "no", "--save", ""],
        "readinessProbe": {"tcpSocket": {"port": _PORT}, "periodSeconds": 1},
    }
    template = {
        "metadata": {"labels": labels},
        "spec": {"automountServiceAccountToken": False, "containers": [container]},
    }
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


def _archive(report: Report) -> Path:
    """The image, of Debian's packages, made where it is not in the cache yet."""
    path = cache_directory() / "redis-bookworm.image.tar"
    with locked(cache_directory() / "redis.image.lock", report):
        if not path.exists():
            report("making the Redis image")
            with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as folder:
                tree = Path(folder)
                # Without what would only install it: adduser, and PAM with its setuid programs.
                debs = download(["redis-server"], Path(scratch), None)
                unpack([each for each in debs if re.match("redis|lib(?!pam)", each.name)], tree)
                for name in ("bin", "sbin", "lib", "lib64"):
                    (tree / name).symlink_to(f"usr/{name}")
                config = ImageConfig(entrypoint=("/usr/bin/redis-server",), user="65532:65532")
                write_scratch_image(path, _IMAGE, tree, config)
    return path
