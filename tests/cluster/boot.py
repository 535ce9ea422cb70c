"""Brings the test cluster up and down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import kuberay, namespaces, packages
from tests.cluster.archive import Image, read_image
from tests.cluster.binary import Report, build, locked
from tests.cluster.configuration import PAUSE_IMAGE, watcher_rights
from tests.cluster.init import Plan
from tests.cluster.keeper import sweep, try_lock
from tests.cluster.layout import Layout, Node
from tests.cluster.supervise import python
from tests.cluster.tools import PROGRAMS

_BOOT_SECONDS = 180.0
_END_SECONDS = 60.0
_IMPORT_SECONDS = 600
_CTR = ("ctr", "-n", "k8s.io", "images")


class BootFailedError(Exception):
    """The cluster did not come up; the message holds the ends of its logs."""


@dataclass(frozen=True)
class Parts:
    """What must be built before anything can boot."""

    kubernetes: Path
    coredns: Path
    policies: Path
    archives: tuple[Path, ...]


def parts(report: Report) -> Parts:
    """Build, or find in the cache, everything that the cluster runs.

    Raises:
        BuildFailedError: a program cannot be built.
    """
    kubernetes = build(report)
    coredns = build(report, PROGRAMS["coredns"])
    pause = kuberay.program_archive("pause", PAUSE_IMAGE, "pause", report)
    return Parts(kubernetes, coredns, build(report, PROGRAMS["policies"]), (pause, kuberay.image_archive(report)))


def alive(layout: Layout) -> bool:
    """Whether a keeper holds the cluster, up or on its way there."""
    lock = try_lock(layout)
    if lock is None:
        return True
    lock.close()
    return False


def up(layout: Layout, report: Report, *, owner: int | None = None, with_kuberay: bool = True) -> None:
    """Boot the cluster, unless it is up already.

    Args:
        layout: which.
        report: shows progress.
        owner: a process whose end is the cluster's too; None to stay until `down`.
        with_kuberay: whether to install KubeRay in it.

    Raises:
        NotPossibleError: this machine lacks something.
        BuildFailedError: a program cannot be built.
        BootFailedError: it did not come up.
    """
    packages.ensure(report)
    made = parts(report)
    layout.cache.mkdir(parents=True, exist_ok=True)
    with locked(layout.cache / "boot.lock", report):
        started = time.monotonic()
        if not alive(layout):
            _start(layout, made, owner)
        _await_up(layout)
        report(f"the control plane is ready ({time.monotonic() - started:.1f} s)")
        if not layout.installed.exists():
            _install(layout, made, report, with_kuberay=with_kuberay)
            layout.installed.touch()
        report(f"the cluster is up ({time.monotonic() - started:.1f} s)")


def _install(layout: Layout, made: Parts, report: Report, *, with_kuberay: bool) -> None:
    """What a fresh control plane lacks."""
    load_images(layout, made.archives, report)
    kubectl(layout, made.kubernetes, "apply", "-f", "-", manifest=watcher_rights())
    if with_kuberay:
        kuberay.install(lambda *arguments: kubectl(layout, made.kubernetes, *arguments), report)
    names = [f"node/{node.name}" for node in layout.nodes]
    # Of an object that is not there yet kubectl waits for no condition, it fails.
    for what in ("create", "condition=Ready"):
        kubectl(layout, made.kubernetes, "wait", f"--for={what}", "--timeout=120s", *names)


def down(layout: Layout) -> None:
    """End the cluster and remove all that it left, whatever became of its keeper.

    Raises:
        TimeoutError: its keeper does not end.
    """
    deadline = time.monotonic() + _END_SECONDS
    asked = False
    while (lock := try_lock(layout)) is None:
        text = layout.lock.read_text()
        if text and not asked:
            os.kill(int(text), signal.SIGTERM)
            asked = True
        if time.monotonic() > deadline:
            raise TimeoutError(f"the keeper of cluster {layout.name!r}, process {text}, has not ended")
        time.sleep(0.1)
    with lock:
        sweep(layout)


def kubectl(layout: Layout, binary: Path, *arguments: str, manifest: list[dict[str, object]] | None = None) -> str:
    """Run kubectl as the administrator, with objects as its standard input where given.

    Raises:
        AssertionError: it failed; its words are in the message.
    """
    text = None if manifest is None else json.dumps({"apiVersion": "v1", "kind": "List", "items": manifest})
    done = subprocess.run(
        [str(binary), "kubectl", "--kubeconfig", str(layout.kubeconfig), *arguments],
        input=text, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        words = " ".join(arguments)
        raise AssertionError(f"kubectl {words}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def load_images(layout: Layout, archives: tuple[Path, ...], report: Report) -> None:
    """Import image archives into every node that does not have them, all nodes at once."""
    images = [(path, read_image(path)) for path in archives]
    with ThreadPoolExecutor(len(layout.nodes)) as pool:
        for done in [pool.submit(_load, layout, node, images, report) for node in layout.nodes]:
            done.result()


def _load(layout: Layout, node: Node, images: list[tuple[Path, Image]], report: Report) -> None:
    _await_containerd(layout, node)
    rows = (line.split() for line in on_node(layout, node, *_CTR, "list").splitlines()[1:])
    present = {(row[0], row[2]) for row in rows}
    for path, image in images:
        if (image.name, image.digest) in present:
            continue
        started = time.monotonic()
        shown = on_node(layout, node, *_CTR, "import", str(path.resolve()))
        if image.name not in shown:  # its archive gives a name that is not the full one
            stored = shown.split()[1]
            on_node(layout, node, *_CTR, "tag", "--force", stored, image.name)
        report(f"{node.name} has {image.name} ({time.monotonic() - started:.1f} s)")


def _await_containerd(layout: Layout, node: Node) -> None:
    deadline = time.monotonic() + _BOOT_SECONDS
    while True:
        try:
            on_node(layout, node, "ctr", "version")
        except (BootFailedError, FileNotFoundError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def on_node(layout: Layout, node: Node, *arguments: str) -> str:
    """Run a program on a node; its output.

    Raises:
        BootFailedError: it failed.
    """
    command = namespaces.command(layout, node, arguments, Path("/"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=_IMPORT_SECONDS, check=False)
    if done.returncode != 0:
        raise BootFailedError(f"{' '.join(arguments)} on {node.name}: {done.stdout}{done.stderr}")
    return done.stdout


def _start(layout: Layout, made: Parts, owner: int | None) -> None:
    """Start the keeper, detached from this process, its terminal and its session."""
    plan = layout.cache / "plan.json"
    Plan(layout.name, layout.node_count, str(made.kubernetes), str(made.coredns), str(made.policies)).write(plan)
    owned = () if owner is None else (str(owner),)
    with (layout.cache / "keeper.log").open("wb") as log:
        process = subprocess.Popen(
            python("tests.cluster.keeper", str(plan), *owned),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + _BOOT_SECONDS
    while not layout.init_pid.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise BootFailedError(f"the keeper ended with {process.poll()}: {_tail(layout.cache / 'keeper.log')}")
        time.sleep(0.05)
    process.returncode = 0  # it outlives this process, or ends with it: nobody waits for it


def _await_up(layout: Layout) -> None:
    deadline = time.monotonic() + _BOOT_SECONDS
    while not layout.up.exists():
        ended = not alive(layout)
        if ended or time.monotonic() > deadline:
            logs = [layout.cache / "keeper.log", *sorted(layout.logs.glob("*.log"))]
            words = "\n".join(f"--- {path.name}\n{_tail(path)}" for path in logs if path.exists())
            raise BootFailedError(f"the cluster {'ended' if ended else 'is not up'}:\n{words}")
        time.sleep(0.1)


def _tail(path: Path) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-15:])
