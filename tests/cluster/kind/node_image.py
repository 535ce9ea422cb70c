"""A node image for kind, made of Debian's packages and of programs built here: for machines that can pull none.

It has what kind's own images have, from the same files where kind's module carries them: an entry point, systemd,
containerd, and one binary that is kubelet, kubeadm, kubectl and, in the images its containerd imports, the control plane.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from images.archive import ImageConfig, write_scratch_image
from tests.cluster import kuberay
from tests.cluster.binary import KUBERNETES_VERSION, Report, build, cache_directory, locked, module_folder
from tests.cluster.configuration import PAUSE_IMAGE
from tests.cluster.packages import NotPossibleError
from tests.cluster.tools import KIND_MODULE, PROGRAMS

_SUITE = "bookworm"
"""The last with a systemd and a containerd that run on the first version of control groups, too."""
_PACKAGES = (
    "bash", "ca-certificates", "conntrack", "containerd", "containernetworking-plugins", "ethtool", "iproute2",
    "iptables", "jq", "kmod", "mount", "nftables", "procps", "runc", "systemd", "util-linux",
)  # fmt: skip
_SECONDS = 900
_WANTS = (
    "lib/systemd/system/multi-user.target.wants", "etc/systemd/system/multi-user.target.wants",
    "etc/systemd/system/getty.target.wants", "etc/systemd/system/timers.target.wants",
    "etc/systemd/system/sysinit.target.wants", "lib/systemd/system/local-fs.target.wants",
    "lib/systemd/system/basic.target.wants",
)  # fmt: skip
"""What Debian starts, and a node does not."""
_UNITS = ("containerd", "kubelet", "undo-mount-hacks")
_NODE_PROGRAMS = ("kubelet", "kubeadm", "kubectl")
_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
_KUBERNETES_IMAGE = f"registry.k8s.io/kube-apiserver:{KUBERNETES_VERSION}"
_COREDNS_IMAGE = "registry.k8s.io/coredns/coredns:v1.13.1"
_ETCD_IMAGE = "registry.k8s.io/etcd:3.6.6-0"
"""As kubeadm names what goes with its version; `kubeadm config images list` says so."""


def root_archive(report: Report) -> Path:
    """The image's file system as a tar archive, made where it is not in the cache yet."""
    parts = {
        "kubernetes": build(report),
        # With the port below 1024 that kubeadm's manifest lets it have as root.
        "coredns": kuberay.program_archive("coredns", _COREDNS_IMAGE, "coredns", report, user="0:0"),
        "pause": kuberay.program_archive("pause", PAUSE_IMAGE, "pause", report),
    }
    files = module_folder(PROGRAMS["kind"], KIND_MODULE) / "images" / "base" / "files"
    told = repr((_PACKAGES, sorted(path.name for path in parts.values()), str(files), Path(__file__).read_bytes()))
    path = cache_directory() / f"kind-node-{hashlib.sha256(told.encode()).hexdigest()[:16]}.tar"
    with locked(cache_directory() / "kind-node.lock", report):
        if not path.exists():
            base = _debian(report)
            report("making a node image for kind, once")
            with _partial(path) as partial, tempfile.TemporaryDirectory(dir=path.parent) as folder:
                tree = Path(folder, "root")
                tree.mkdir()
                _run("tar", "--extract", "--file", str(base), "--directory", str(tree))
                _arrange(tree, files)
                _add_programs(tree, parts["kubernetes"], (parts["coredns"], parts["pause"]))
                _run("tar", "--create", "--file", str(partial), "--directory", str(tree), ".")
    return path


def _debian(report: Report) -> Path:
    path = cache_directory() / f"kind-base-{hashlib.sha256(repr((_SUITE, _PACKAGES)).encode()).hexdigest()[:16]}.tar"
    if path.exists():
        return path
    report("unpacking Debian's packages for kind's nodes, once")
    with _partial(path) as partial:
        _run(
            "mmdebstrap", "--variant=minbase", "--format=tar", f"--include={','.join(_PACKAGES)}", _SUITE, str(partial)
        )
    return path


def _arrange(tree: Path, files: Path) -> None:
    """What kind's own image has beside packages."""
    for source in sorted(path for path in files.rglob("*") if path.is_file()):
        target = tree / source.relative_to(files)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copyfile(source, target)
        target.chmod(0o755 if "bin" in source.parts[-2:] else 0o644)
    for folder in _WANTS:
        for link in (tree / folder).glob("*"):
            link.unlink()
    for name in ("systemd-tmpfiles-setup.service", "systemd-sysctl.service"):
        (tree / "lib/systemd/system/sysinit.target.wants" / name).unlink(missing_ok=True)
    wants = tree / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    for unit in _UNITS:
        (wants / f"{unit}.service").symlink_to(f"/etc/systemd/system/{unit}.service")
    (tree / "etc/systemd/system/systemd-binfmt.service").symlink_to("/dev/null")
    with (tree / "etc/systemd/journald.conf").open("a") as file:
        file.write("ReadKMsg=no\n")
    (tree / "etc/kubernetes/manifests").mkdir(parents=True)
    (tree / "opt/cni").mkdir(parents=True, exist_ok=True)
    (tree / "opt/cni/bin").symlink_to("/usr/lib/cni")
    for program, place in (("containerd", "usr/local/bin"), ("runc", "usr/local/sbin")):
        found = next(folder for folder in ("/usr/bin", "/usr/sbin") if (tree / folder[1:] / program).exists())
        (tree / place / program).symlink_to(f"{found}/{program}")
    (tree / "sbin/init").unlink(missing_ok=True)
    (tree / "sbin/init").symlink_to("/lib/systemd/systemd")
    configuration = tree / "etc/containerd/config.toml"
    # Some hosts withhold CAP_SYS_RESOURCE, without which no process may lower its score.
    configuration.write_text(
        configuration.read_text().replace("restrict_oom_score_adj = false", "restrict_oom_score_adj = true")
    )
    (tree / "etc/containerd/cri-base.json").write_text(json.dumps(_base_specification(tree)))


def _base_specification(tree: Path) -> object:
    """What containerd starts containers by, with kind's hook that hides which machine this is."""
    found = json.loads(_run("chroot", str(tree), "ctr", "oci", "spec"))
    found.setdefault("hooks", {}).setdefault("createContainer", []).append({"path": "/kind/bin/mount-product-files.sh"})
    del found["process"]["rlimits"]
    return found


def _add_programs(tree: Path, kubernetes: Path, archives: tuple[Path, ...]) -> None:
    """Kubernetes on the node, and the archives that its containerd imports when it starts."""
    shutil.copy(kubernetes, tree / "usr/bin/kubernetes")
    for name in _NODE_PROGRAMS:
        (tree / "usr/bin" / name).symlink_to("kubernetes")
    (tree / "kind/version").write_text(KUBERNETES_VERSION)
    images = tree / "kind/images"
    images.mkdir()
    for archive in archives:
        shutil.copy(archive, images)
    plane = tree.with_name("plane")
    _with_nft(plane, tree)
    (plane / "usr/local/bin").mkdir(parents=True)
    shutil.copy(kubernetes, plane / "usr/local/bin/kubernetes")
    for name in (*_PLANE, "etcd"):
        (plane / "usr/local/bin" / name).symlink_to("kubernetes")
    path = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin"}
    config = ImageConfig(entrypoint=("/usr/local/bin/kubernetes",), user="0:0", environment=path)
    write_scratch_image(images / "kubernetes.tar", _KUBERNETES_IMAGE, plane, config)
    names = [f"registry.k8s.io/{name}:{KUBERNETES_VERSION}" for name in _PLANE[1:]]
    importer = tree / "kind/bin/import-images.sh"
    importer.write_text(
        "#!/bin/sh -eu\n# One image is the whole control plane, under the names that kubeadm asks for.\n"
        "for archive in /kind/images/*.tar; do ctr -n k8s.io images import --all-platforms $archive; done\n"
        f"ctr -n k8s.io images tag --force {_KUBERNETES_IMAGE} {' '.join([*names, _ETCD_IMAGE])}\n"
    )
    importer.chmod(0o755)
    own = tree / "etc/systemd/system/containerd.service.d"
    own.mkdir()
    (own / "penstock.conf").write_text("[Service]\nExecStartPost=/kind/bin/import-images.sh\n")


def _with_nft(plane: Path, tree: Path) -> None:
    """nft and its libraries, by which kube-proxy writes its rules."""
    listed = _run("chroot", str(tree), "ldd", "/usr/sbin/nft")
    libraries = [word for line in listed.splitlines() for word in line.split() if word.startswith("/")]
    for name in ("/usr/sbin/nft", *libraries):
        target = plane / name[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        # Links are followed as they lead inside the tree.
        shutil.copy(tree / _run("chroot", str(tree), "readlink", "-f", name).strip()[1:], target)


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """A file beside a path, which becomes it when the block ends well."""
    partial = path.with_name(f"{path.stem}.partial.tar")
    try:
        yield partial
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode != 0:
        raise NotPossibleError(f"{' '.join(command[:3])} failed ({done.returncode}): {done.stderr.strip()[-2000:]}")
    return done.stdout
