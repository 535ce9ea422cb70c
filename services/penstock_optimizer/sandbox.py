"""Runs a module of this package where code of a user, or a crash, can do little harm.

The child has no network (a network namespace of its own, without any interface but a downed loopback), no environment
beside what a build needs, no process but its own in sight of a signal, no secrets of the usual folders, and no
capability by which it could take any of that back. It ends with its parent. Linux only; all of it without root, through
a user namespace. Where the kernel or the container runtime forbids those, code of a user is refused.

    python -m penstock_optimizer.sandbox <parent's pid> <isolated|shared> <module>

Only the standard library is imported here: a process can enter a user namespace only while it has one thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from penstock.errors import Invalid
from penstock_runtime.parent_death import end_with_parent

SANDBOX_UNAVAILABLE: Final = "SandboxUnavailable"

_KEPT: Final = frozenset({
    "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV", "CC", "CXX",
    "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "PENSTOCK_LITERT_PYTHON",
})  # fmt: skip
"""The only variables that the child inherits."""
_HIDDEN: Final = (
    "~/.ssh", "~/.aws", "~/.azure", "~/.kube", "~/.docker", "~/.gnupg", "~/.config/gcloud", "~/.config/gh",
    "~/.local/share/keyrings", "/var/run/secrets", "/run/secrets",
)  # fmt: skip
"""Folders where credentials usually lie. The child sees them empty."""
_HIDE: Final = "PENSTOCK_SANDBOX_HIDE"

_CLONE_NEWNS: Final = 0x0002_0000
_CLONE_NEWIPC: Final = 0x0800_0000
_CLONE_NEWUSER: Final = 0x1000_0000
_CLONE_NEWPID: Final = 0x2000_0000
_CLONE_NEWNET: Final = 0x4000_0000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x2, 0x4, 0x8, 0x1000, 0x4000, 0x4_0000
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_CAPABILITY_VERSION_3: Final = 0x2008_0522
_CAPABILITIES: Final = 64
"""Numbers that the kernel's sets have room for."""

_MOST_PROCESSES: Final = 4096
_LARGEST_FILE: Final = 64 << 30
_STDERR_KEPT: Final = 4000
_SIGNALLED: Final = 128
"""A shell's convention: an exit status above this names the signal."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended."""

    status: int
    """Of the exit; -n: it was killed by signal n."""
    stderr: str
    """Its last characters."""
    timed_out: bool

    @property
    def reason(self) -> str:
        """In words, with the last line that it wrote to its standard error."""
        lines = [line for line in self.stderr.strip().splitlines() if line.strip()]
        last = f": {lines[-1].strip()[:500]}" if lines else ""
        if self.timed_out:
            return f"it did not end in time{last}"
        if self.status < 0:
            return f"it was killed by {_signal_name(-self.status)}{last}"
        return f"it ended with status {self.status}{last}"


def run_module(
    module: str,
    request: str,
    *,
    home: Path,
    isolated: bool,
    timeout: float,
    threads: int = 1,
    hidden: Sequence[Path] = (),
) -> Ended:
    """Run `python -m module` with a request on its standard input, and wait for it. Results come as files.

    Args:
        module: which reads its standard input to the end.
        request: what is written there.
        home: a folder that becomes its home, its working directory and its place for temporary files.
        isolated: by namespaces. Otherwise only the environment, the limits and the end with the parent are kept.
        timeout: in seconds, after which it is killed with all that it started.
        threads: for libraries that read OMP_NUM_THREADS.
        hidden: further folders and files that it must not see, such as a signing key: they are empty to it.

    Raises:
        Invalid: SandboxUnavailable.
    """
    if isolated:
        require_sandbox()
    arguments = sandbox_command(module, isolated=isolated)
    with tempfile.TemporaryFile(dir=home) as stderr:
        process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=stderr, cwd=home,
            env=environment(home, threads, hidden), start_new_session=True,
        )  # fmt: skip
        timed_out = False
        try:
            process.communicate(request.encode(), timeout=timeout)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            _end(process)
        size = stderr.seek(0, os.SEEK_END)
        stderr.seek(max(0, size - _STDERR_KEPT))
        text = stderr.read().decode(errors="replace")
    status = process.returncode
    return Ended(_SIGNALLED - status if status > _SIGNALLED else status, text, timed_out)


def require_sandbox() -> None:
    """Check that there is one.

    Raises:
        Invalid: SandboxUnavailable. Nothing stands in for it: what needs it does not run.
    """
    problem = why_unavailable()
    if problem is not None:
        raise Invalid(
            SANDBOX_UNAVAILABLE,
            f"code of a model runs only in a sandbox, and {problem}: allow user namespaces (sysctl"
            " user.max_user_namespaces, and a seccomp or AppArmor profile that allows unshare), or run the whole"
            " command in a container without network and secrets, and say so by --no-sandbox; or export the model to ONNX,"
            " which is no code",
        )


def sandbox_command(module: str, *, isolated: bool = True) -> list[str]:
    """What starts `python -m module` in the sandbox as this process's child."""
    mode = "isolated" if isolated else "shared"
    return [sys.executable, "-m", "penstock_optimizer.sandbox", str(os.getpid()), mode, module]


def environment(home: Path, threads: int, hidden: Sequence[Path] = ()) -> dict[str, str]:
    """The child's whole environment."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT}
    folder = str(home)
    return kept | {
        "HOME": folder,
        "TMPDIR": folder,
        "XDG_CACHE_HOME": f"{folder}/.cache",
        "TORCHINDUCTOR_CACHE_DIR": f"{folder}/.inductor",
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "NNCF_CI": "1",  # it reports its use to its maker otherwise
        _HIDE: os.pathsep.join([*(os.path.expanduser(each) for each in _HIDDEN), *map(str, hidden)]),  # noqa: PTH111 -- a home may be absent, and Path.expanduser raises then
    }


@cache
def why_unavailable() -> str | None:
    """Why this machine gives no namespaces; None where it does. Tried once, in a process of its own."""
    if sys.platform != "linux":
        return "namespaces are Linux's"
    code = "from penstock_optimizer import sandbox; sandbox.isolate()"
    try:
        tried = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False,
            env=environment(Path(tempfile.gettempdir()), 1),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "entering a namespace took over a minute"
    if tried.returncode == 0:
        return None
    lines = tried.stderr.strip().splitlines()
    return f"this machine gives no namespaces ({lines[-1] if lines else tried.returncode})"


def isolate() -> None:
    """Move this process into namespaces of its own; children are further in one for processes.

    Raises:
        OSError: the kernel says no.
    """
    user, group = os.geteuid(), os.getegid()
    libc = _libc()
    flags = _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWIPC | _CLONE_NEWNET | _CLONE_NEWPID
    _check_result(libc.unshare(flags), "unshare")
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    _check_result(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "mount")
    for path in filter(None, os.environ.pop(_HIDE, "").split(os.pathsep)):
        if Path(path).is_dir():
            flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
            _check_result(libc.mount(b"none", os.fsencode(path), b"tmpfs", flags, b"size=64k"), f"hiding {path}")
        elif Path(path).exists():
            _check_result(libc.mount(b"/dev/null", os.fsencode(path), None, _MS_BIND, None), f"hiding {path}")


def main(arguments: Sequence[str]) -> None:
    """What the child does before it is the module: see the top of this file."""
    parent, mode, module = arguments
    _limit()
    if mode == "isolated":
        isolate()
        # After the namespaces: a change of identity forgets this.
        end_with_parent(int(parent))
        _fork_first_process()
        _drop_capabilities()
    else:
        os.environ.pop(_HIDE, None)
        end_with_parent(int(parent))
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for limit, wanted in ((resource.RLIMIT_FSIZE, _LARGEST_FILE), (resource.RLIMIT_NPROC, _MOST_PROCESSES)):
        _, hard = resource.getrlimit(limit)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(limit, (value, value))


def _fork_first_process() -> None:
    """Return in a grandchild. Between stands the first process of the namespace: with it the kernel ends all others."""
    first = os.fork()
    if first:
        os._exit(_wait_for(first))
    end_with_parent(os.getppid())
    worker = os.fork()
    if worker:
        os._exit(_wait_for(worker))


def _wait_for(child: int) -> int:
    """Wait for a child, reaping what else ends meanwhile, and give its exit status as a shell would."""
    os.close(0)
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else _SIGNALLED - code


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _drop_capabilities() -> None:
    """Give up what the user namespace gave, for this process and all that it starts."""
    libc = _libc()
    for number in range(_CAPABILITIES):
        libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)  # numbers that this kernel does not know fail, rightly
    header, none = _Header(_CAPABILITY_VERSION_3, 0), (_Sets * 2)()
    _check_result(libc.capset(ctypes.byref(header), none), "capset")
    _check_result(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the child's whole group, and wait."""
    with contextlib.suppress(ProcessLookupError):  # all of it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):  # the child ended before it read all
            process.stdin.close()


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check_result(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    main(sys.argv[1:])
