"""A whole Kubernetes on this machine, for tests: see README.md in this folder.

python -m tests.cluster up              build what is missing, boot, install KubeRay; it stays until `down`
python -m tests.cluster down            end it; nothing stays but the caches
python -m tests.cluster status          whether it is up, and where its files are
python -m tests.cluster kubectl ARG...  kubectl as its administrator
python -m tests.cluster load FILE...    put image archives on its nodes
python -m tests.cluster run COMMAND...  run a program on node0: its network, its DNS
python -m tests.cluster build           build everything that `up` would, and boot nothing

With PENSTOCK_CLUSTER=kind the same by kind, for up, down, kubectl and load.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.cluster import boot, namespaces
from tests.cluster.binary import build
from tests.cluster.kind.cluster import KindCluster, down, state
from tests.cluster.kind.docker import Docker
from tests.cluster.layout import Layout
from tests.cluster.tools import say, tool


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--name", default=Layout().name, help="which cluster, where there are several")
    parser.add_argument("--nodes", type=int, default=2, help="how many nodes a new one gets")
    parser.add_argument("command", choices=("up", "down", "status", "kubectl", "load", "run", "build"))
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    layout = Layout(options.name, options.nodes)
    if os.environ.get("PENSTOCK_CLUSTER") == "kind":
        return _by_kind(options.command, tuple(options.arguments))
    match options.command:
        case "up":
            boot.up(layout, say)
            print(f"export KUBECONFIG={layout.kubeconfig}")
        case "down":
            boot.down(layout)
        case "build":
            boot.parts(say)
        case "status":
            return _status(layout)
        case "load":
            boot.load_images(layout, tuple(Path(path) for path in options.arguments), say)
        case "kubectl":
            os.environ["KUBECONFIG"] = str(layout.kubeconfig)
            binary = str(build(say))
            os.execv(binary, [binary, "kubectl", *options.arguments])
        case "run":
            os.environ["KUBECONFIG"] = str(layout.configuration / "admin.kubeconfig")
            command = namespaces.command(layout, layout.nodes[0], tuple(options.arguments), Path.cwd())
            os.execvp(command[0], command)
    return 0


def _by_kind(command: str, arguments: tuple[str, ...]) -> int:
    match command:
        case "up":
            print(f"export KUBECONFIG={KindCluster(say).kubeconfig}")
        case "down":
            down(Docker(state()), tool("kind"))
        case "load":
            made = KindCluster(say)
            for path in arguments:
                print(made.load_image(Path(path)))
        case "kubectl":
            binary = str(build(say))
            os.execve(binary, [binary, "kubectl", *arguments], os.environ | {"KUBECONFIG": str(state() / "kubeconfig")})
        case _:
            say(f"{command} is not there with PENSTOCK_CLUSTER=kind")
            return 2
    return 0


def _status(layout: Layout) -> int:
    if not boot.alive(layout):
        print(f"cluster {layout.name!r} is down")
        return 1
    print(f"cluster {layout.name!r} is {'up' if layout.up.exists() else 'booting'}; kubeconfig {layout.kubeconfig},")
    print(f"logs {layout.logs}, images {layout.cache}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
