"""A real S3 server: versitygw over a folder, built from its Go module once, into the user's cache directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.binary import Program, build
from tests.cluster.tools import say
from tests.ports import free_port
from tests.stores.served_program import served

PROGRAM = Program(
    "versitygw", Path(__file__).resolve().parent, "an S3 server", package="github.com/versity/versitygw/cmd/versitygw"
)


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


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """A server with one bucket, `models`, until the block ends."""
    (folder / "data" / "models").mkdir(parents=True)
    (folder / "meta").mkdir()
    port = free_port()
    server = S3Server(f"http://127.0.0.1:{port}")
    command = [
        str(build(say, PROGRAM)), "--port", f"127.0.0.1:{port}", "--access", server.access_key,
        "--secret", server.secret_key, "--quiet", "posix", "--sidecar", str(folder / "meta"), str(folder / "data"),
    ]  # fmt: skip
    with served(command, port, folder / "log"):
        yield server
