"""A process that takes part in an election: arguments are kubeconfig, namespace and identity; says what it is told."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from penstock_operator.runtime.cluster import Key
from penstock_operator.runtime.cluster.kubernetes import KubernetesCluster
from penstock_operator.runtime.leading.lease import Election


def main() -> None:
    kubeconfig, namespace, identity = sys.argv[1:]

    def lost() -> None:
        print("lost", flush=True)
        os._exit(1)

    election = Election(
        KubernetesCluster.connect(Path(kubeconfig)),
        Key(namespace, "operator"),
        identity,
        elected=lambda: print("elected", flush=True),
        lost=lost,
    )
    election.start()
    threading.Event().wait(300)


if __name__ == "__main__":
    main()
