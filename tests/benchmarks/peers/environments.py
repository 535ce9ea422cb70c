"""Peers, each with an environment of its own in the user's cache directory, and how each is started.

To add one: a script beside this file that serves the ONNX model `MODEL.onnx` (input `x`, output `y`, one thread) on a port
of loopback and answers the protocol's JSON, and a row in `PEERS`. A row for each setting in which its makers would run it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
_UV = HERE.parents[2] / "scripts" / "uv"
_SECONDS = 900


@dataclass(frozen=True)
class Peer:
    """A server in one of its settings."""

    name: str
    requirements: tuple[str, ...]
    script: str
    arguments: tuple[str, ...] = ()
    path: str = "/v2/models/tiny/infer"
    python: str | None = None
    """Interpreter that its environment is made with; None: this one's."""

    def command(self, python: Path, model: Path, port: int) -> list[str]:
        """How it is started."""
        return [str(python), str(HERE / self.script), str(model), str(port), *self.arguments]


_MLSERVER = ("mlserver==1.7.1", "onnxruntime==1.32.0")
_PYTRITON = ("nvidia-pytriton==0.7.0", "onnxruntime==1.32.0")
_LITSERVE = ("litserve==0.2.19", "onnxruntime==1.32.0")
_LINKED_PYTHON = "/usr/bin/python3"
"""Triton's stub loads the system's libpython, which must be of the interpreter whose standard library it finds."""

PEERS = (
    Peer("KServe 0.21", ("kserve==0.21.0", "onnxruntime==1.32.0"), "kserve_model.py"),
    Peer("MLServer 1.7, no batching", _MLSERVER, "mlserver_model.py"),
    Peer("MLServer 1.7, batches of 32, 3 ms", _MLSERVER, "mlserver_model.py", ("32", "0.003")),
    Peer("PyTriton 0.7, no delay", _PYTRITON, "pytriton_model.py", ("0",), python=_LINKED_PYTHON),
    Peer("PyTriton 0.7, 3 ms", _PYTRITON, "pytriton_model.py", ("3000",), python=_LINKED_PYTHON),
    Peer("LitServe 0.2, batches of 32, 3 ms", _LITSERVE, "litserve_model.py", ("32", "0.003"), path="/predict"),
)


def install(peer: Peer) -> Path:
    """The Python of the peer's environment; made at the first call.

    Raises:
        subprocess.CalledProcessError: it cannot be installed.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock" / "peers"
    interpreter = peer.python or sys.executable
    digest = hashlib.sha256("\n".join([interpreter, *sorted(peer.requirements)]).encode()).hexdigest()[:16]
    folder = cache / digest
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        for command in (
            ["venv", "--quiet", "--clear", "--python", interpreter, str(folder)],
            ["pip", "install", "--quiet", "--python", str(python), *peer.requirements],
        ):
            subprocess.run([str(_UV), *command], check=True, timeout=_SECONDS)
        done.touch()
    return python
