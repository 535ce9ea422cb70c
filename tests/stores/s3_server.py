"""A real S3 server: versitygw over a folder, built from its Go module once, into the user's cache directory."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.binary import _environment, _find_go, cache_directory
from tests.ports import free_port
from tests.stores.served_program import served

_MODULE = Path(__file__).resolve().parent
_PACKAGE = "github.com/versity/versitygw/cmd/versitygw"
_BUILD_SECONDS = 900


@dataclass(frozen=True)
class S3Server:
    """Where it listens, and who may use it."""

    url: str
    access_key: str = "penstock-tests"
    secret_key: str = "penstock-tests-secret"

    @property
    def environment(self) -> dict[str, str]:
        """What S3 clients read."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def build() -> Path:
    """The server's binary, built where it is not in the cache yet."""
    sums = (_MODULE / "go.mod").read_bytes() + (_MODULE / "go.sum").read_bytes()
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    binary = cache / f"versitygw-{hashlib.sha256(sums).hexdigest()[:16]}"
    with (cache / "versitygw.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            partial = binary.with_suffix(f".{os.getpid()}.partial")
            command = [*_find_go(), "build", "-trimpath", "-ldflags=-s -w", "-o", str(partial), _PACKAGE]
            subprocess.run(command, cwd=_MODULE, env=_environment(), check=True, timeout=_BUILD_SECONDS)
            partial.rename(binary)
    return binary


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """A server with one bucket, `models`, until the block ends."""
    (folder / "data" / "models").mkdir(parents=True)
    (folder / "meta").mkdir()
    port = free_port()
    server = S3Server(f"http://127.0.0.1:{port}")
    command = [
        str(build()), "--port", f"127.0.0.1:{port}", "--access", server.access_key, "--secret", server.secret_key,
        "--quiet", "posix", "--sidecar", str(folder / "meta"), str(folder / "data"),
    ]  # fmt: skip
    with served(command, port, folder / "log"):
        yield server
