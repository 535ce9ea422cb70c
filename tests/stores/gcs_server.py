"""A server of Google Cloud Storage's API, fake-gcs-server, built from its Go module once. It checks no credentials."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.binary import Program, build
from tests.cluster.tools import say
from tests.ports import free_port
from tests.stores.meddler import Meddler, meddling
from tests.stores.served_program import served

PROGRAM = Program(
    "fake-gcs-server",
    Path(__file__).resolve().parent / "gcs",
    "a server of Google Cloud Storage's API",
    package="github.com/fsouza/fake-gcs-server",
)


@contextmanager
def gcs_server(folder: Path) -> Iterator[Meddler]:
    """A server with one bucket, `models`, behind a meddler, until the block ends."""
    (folder / "data" / "models").mkdir(parents=True)
    port = free_port()
    command = [
        str(build(say, PROGRAM)), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "filesystem",
        "-filesystem-root", str(folder / "data"), "-public-host", f"127.0.0.1:{port}", "-log-level", "warn",
    ]  # fmt: skip
    with served(command, port, folder / "log"), meddling(port) as meddler:
        yield meddler
