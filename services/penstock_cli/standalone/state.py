"""The folder in which a standalone Penstock keeps everything, and the lock that lets one run use it."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock.errors import Conflict, Invalid
from penstock_runtime.atomic import write_atomically


@dataclass(frozen=True, slots=True)
class StateFolder:
    """Names of the files in the state folder."""

    root: Path

    @property
    def store(self) -> Path:
        """The embedded store's database."""
        return self.root / "cluster.db"

    @property
    def logs(self) -> Path:
        """A log file for each process."""
        return self.root / "logs"

    @property
    def traces(self) -> Path:
        """Collected spans, as OTLP JSON lines."""
        return self.root / "traces.jsonl"

    @property
    def ray_token_file(self) -> Path:
        """Ray's authentication token."""
        return self.root / "ray-token"

    @property
    def gateway_secret_file(self) -> Path:
        """The gateway's secret."""
        return self.root / "gateway-secret"

    @property
    def jobs(self) -> Path:
        """Where the operator keeps the output of the Jobs that it runs on this machine."""
        return self.root / "jobs"

    @property
    def artifacts(self) -> Path:
        """The artifact store: optimized models, reports, and how searches get on."""
        return self.root / "artifacts"

    @property
    def signing_key_file(self) -> Path:
        """The private key that signs optimized models."""
        return self.root / "signing-key.pem"

    @property
    def public_key_file(self) -> Path:
        """Its public half, which replicas trust."""
        return self.root / "signing-key.pub.pem"

    @property
    def tls(self) -> Path:
        """The gateway's certificate, and the authority that clients trust, where this run has TLS."""
        return self.root / "tls"

    @property
    def metrics_file(self) -> Path:
        """Where the run's gateway and operator tell their metrics."""
        return self.root / "metrics.json"

    def note_metrics(self, component: str, url: str) -> None:
        """Keep in mind where a component of this run tells its metrics."""
        write_atomically(self.metrics_file, json.dumps({**self._noted_metrics(), component: url}).encode())

    def metrics_urls(self) -> dict[str, str]:
        """By component; none where no run is up."""
        return self._noted_metrics() if is_locked(self) else {}

    def _noted_metrics(self) -> dict[str, str]:
        try:
            found = json.loads(self.metrics_file.read_bytes())
        except (OSError, ValueError):
            return {}
        return {str(name): str(url) for name, url in found.items()} if isinstance(found, dict) else {}

    def create(self) -> None:
        """Make the folder, for its owner only.

        Raises:
            Invalid: it cannot be made.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.logs.mkdir(exist_ok=True)
        except OSError as error:
            raise Invalid(
                "StateFolder",
                f"{self.root}: no state folder can be made there ({error.strerror}): name another by --state-dir, or by "
                "PENSTOCK_STATE_DIR",
            ) from error

    def secret(self, path: Path) -> str:
        """The secret in a file that only its owner can read; made at the first call."""
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(32))
        path.chmod(0o600)
        return path.read_text(encoding="ascii").strip()


def default_state_folder() -> Path:
    """`$PENSTOCK_STATE_DIR`, or `penstock` in the user's state folder (XDG)."""
    given = os.environ.get("PENSTOCK_STATE_DIR")
    if given:
        return Path(given).absolute()
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "penstock"


def default_cache_folder() -> Path:
    """`penstock` in the user's cache folder (XDG)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock"


def optimizer_workspace(cache: Path) -> Path:
    """Where searches keep what they built and measured, so that the same search again is free."""
    return cache / "optimizer"


class StateLock:
    """Held by the run that uses a state folder; the kernel gives it back however that run ends."""

    def __init__(self, folder: StateFolder) -> None:
        self._path = folder.root / "lock"
        self._file = self._path.open("a")

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            Conflict: another run has it.
        """
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise Conflict(
                "StateInUse",
                f"another `penstock run` uses {self._path.parent}. Stop it, or give this one a folder of its own: "
                "penstock run --state-dir FOLDER",
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back."""
        self._file.close()


def is_locked(folder: StateFolder) -> bool:
    """Whether a run uses the folder now."""
    path = folder.root / "lock"
    if not path.exists():
        return False
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
