"""Debian packages for a base: chosen and verified by mmdebstrap and apt, unpacked without running any of their scripts.

Nothing is installed in dpkg's sense. A base so made holds no setuid file, no package manager and no state of the machine
that made it; its files are those of the packages, so the same packages give the same files. What was unpacked is in
`/var/lib/dpkg/status.d/`, where scanners of images look for it.
"""

from __future__ import annotations

import fnmatch
import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from images.catalogue import NONROOT, RAY, Flavour
from penstock.errors import Invalid, Unavailable

SUITE: Final = "bookworm"
_TIMEOUT_SECONDS: Final = 600.0
TEXT_LOCALE: Final = "en_US.utf8"
_STATUS: Final = "var/lib/dpkg/status.d"
_MERGED: Final = frozenset({"bin", "sbin", "lib", "lib32", "lib64", "libx32"})

WANTED: Final[dict[Flavour, tuple[str, ...]]] = {
    Flavour.PYTHON: ("base-files", "ca-certificates", "libstdc++6", "media-types", "netbase", "python3.11"),
    # KubeRay starts its pods by bash, and its probes are bash, wget and grep.
    # libc-bin has the locale that text models are given.
    Flavour.SHELL: ("bash", "coreutils", "dash", "grep", "libc-bin", "sed", "wget"),
    # With g++ and Python's headers torch compiles models; it takes checksums by openssl.
    Flavour.COMPILER: ("g++", "libpython3.11-dev", "openssl"),
    # A Dockerfile's build installs packages by pip and uv.
    Flavour.BUILDER: ("python3-pip",),
}
# Needed by what installs or configures packages; nothing is installed or configured in an image.
_DROPPED: Final = frozenset({"debconf", "dpkg", "mawk", "openssl", "perl-base", "tar", "tzdata"})
_LEFT_OUT: Final = (
    "usr/share/doc/*/[!c]*",
    "usr/share/doc/*/changelog*",
    "usr/share/info/*",
    "usr/share/lintian/*",
    "usr/share/locale/*",
    "usr/share/man/*",
    "usr/bin/*-lto-dump*",
    "usr/lib/python3.*/ensurepip/*",
    "usr/lib/python3.*/idlelib/*",
    "usr/lib/python3.*/lib2to3/*",
    "usr/lib/python3.*/test/*",
    "usr/lib/python3.*/config-*/*.a",
    "usr/lib/x86_64-linux-gnu/libpython3.*.a",
)


@dataclass(frozen=True)
class Deb:
    """A package file, and its control fields as text."""

    path: Path
    name: str
    version: str
    control: str
    sha256: str


def download(packages: Sequence[str], scratch: Path, mirror: str | None) -> tuple[Deb, ...]:
    """Let mmdebstrap choose and download `packages` and all that they need, signatures checked.

    Args:
        packages: names.
        scratch: an empty folder.
        mirror: where from; this machine's own sources when None. With a snapshot of the archive the versions are pinned.

    Raises:
        Invalid: mmdebstrap is not installed.
        Unavailable: it failed; its last lines are in the message.
    """
    if shutil.which("mmdebstrap") is None:
        raise Invalid(
            "BaseUnavailable", "mmdebstrap makes the base: install it (Debian, Ubuntu), or give one by --base"
        )
    root = scratch / "root"
    command = ["mmdebstrap", "--variant=extract", "--skip=cleanup", "--skip=check/empty"]
    command += ["--aptopt=Acquire::Languages none", f"--include={','.join(packages)}", SUITE, str(root)]
    _run([*command, mirror] if mirror else command)
    debs = sorted((root / "var/cache/apt/archives").glob("*.deb"))
    return tuple(deb for deb in map(_read, debs) if deb.name in packages or deb.name not in _DROPPED)


def _read(path: Path) -> Deb:
    control = _run(["dpkg-deb", "--field", str(path)])
    fields = dict(line.split(": ", 1) for line in control.splitlines() if not line.startswith(" ") and ": " in line)
    return Deb(path, fields["Package"], fields["Version"], control, hashlib.sha256(path.read_bytes()).hexdigest())


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_SECONDS)
    if done.returncode:
        raise Unavailable("BaseUnavailable", f"{command[0]} failed ({done.returncode}): {done.stderr.strip()[-2000:]}")
    return done.stdout


def unpack(debs: Sequence[Deb], tree: Path) -> None:
    """Unpack `debs` into `tree`, in merged-usr layout, without what no container needs, and note them as installed."""
    for deb in debs:
        command = ["dpkg-deb", "--fsys-tarfile", str(deb.path)]
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE) as process,
            tarfile.open(fileobj=process.stdout, mode="r|") as archive,
        ):
            for member in _select(archive):
                # Signed by Debian, and with absolute links; what no image may hold, the layer's writer refuses.
                archive.extract(member, tree, filter="fully_trusted")
        if process.returncode:
            raise Unavailable("BaseUnavailable", f"{deb.path.name} could not be unpacked: download it again")
        note = tree / _STATUS / deb.name
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(f"{deb.control.rstrip()}\nStatus: install ok unpacked\nX-Archive-SHA256: {deb.sha256}\n")


def _select(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in archive:
        name = image_path(member.name)
        if not name or any(fnmatch.fnmatch(name, pattern) for pattern in _LEFT_OUT):
            continue
        renamed = member.replace(name=name, mode=member.mode & 0o755 if member.isdir() else member.mode, deep=False)
        if member.islnk():
            renamed = renamed.replace(linkname=image_path(member.linkname), deep=False)
        yield renamed


def image_path(name: str) -> str:
    """Where a package's path lies under a merged `/usr`: `./bin/bash` → `usr/bin/bash`; the root itself is empty."""
    path = PurePosixPath(name.removeprefix("./").lstrip("/"))
    if not path.parts or path.parts == (".",):
        return ""
    return f"usr/{path}" if path.parts[0] in _MERGED else str(path)


def complete(tree: Path, flavour: Flavour) -> None:
    """Add what the packages' own scripts would have made: links, users, a locale, certificates in one file."""
    match flavour:
        case Flavour.PYTHON:
            _complete_python(tree)
        case Flavour.SHELL:
            if not (tree / "usr/bin/sh").is_symlink():
                (tree / "usr/bin/sh").symlink_to("dash")
            # ONNX Runtime's text operators ask for it by name. Of a locale they take how letters are changed to lower and
            # upper case, which in both is as Unicode has it.
            (tree / "usr/lib/locale").mkdir(parents=True, exist_ok=True)
            (tree / "usr/lib/locale" / TEXT_LOCALE).symlink_to("C.utf8")
        case Flavour.BUILDER:
            pass
        case Flavour.COMPILER:
            for name, target in (("c++", "g++"), ("cc", "gcc")):
                (tree / "usr/bin" / name).symlink_to(target)


def _complete_python(tree: Path) -> None:
    for name in ("bin", "sbin", "lib", "lib64"):
        (tree / "usr" / name).mkdir(parents=True, exist_ok=True)
        (tree / name).symlink_to(f"usr/{name}")
    for name in ("tmp", "var/tmp", "proc", "sys", "dev", "run", "usr/local/bin"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    for name in ("python", "python3"):
        (tree / "usr/bin" / name).symlink_to("python3.11")
    certificates = sorted((tree / "usr/share/ca-certificates").rglob("*.crt"))
    bundle = tree / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_bytes(b"".join(path.read_bytes() for path in certificates))
    users = (("root", 0), (NONROOT.name, NONROOT.uid), (RAY.name, RAY.uid))
    lines = {
        "passwd": [f"{name}:x:{uid}:{uid}::/tmp:/usr/sbin/nologin" for name, uid in users],
        "group": [f"{name}:x:{uid}:" for name, uid in users],
        "nsswitch.conf": ["passwd: files", "group: files", "hosts: files dns"],
    }
    for name, content in lines.items():
        (tree / "etc" / name).write_text("\n".join(content) + "\n")
