"""One embedded cluster, used by several processes at once, as the operator and the CLI do."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path

from penstock_operator.runtime.cluster import CONFIG_MAP, EventType
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster

WRITER = """
import sys
from pathlib import Path
from penstock_operator.runtime.cluster import CONFIG_MAP
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
path, writer = sys.argv[1:]
cluster = EmbeddedCluster(Path(path))
for index in range(50):
    cluster.create(CONFIG_MAP, {"metadata": {"name": f"{writer}-{index}", "namespace": "default"}})
    shared = {"metadata": {"name": "shared", "namespace": "default"}, "data": {writer: str(index)}}
    cluster.apply(CONFIG_MAP, shared, writer)
cluster.close()
"""


def test_a_watcher_sees_all_that_four_other_processes_write_and_no_write_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "cluster.sqlite"
    cluster = EmbeddedCluster(path)
    version = cluster.list(CONFIG_MAP).resource_version
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), f"w{index}"]) for index in range(4)]
    try:
        events = list(islice(cluster.watch(CONFIG_MAP, None, version, 120.0), 400))
        assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait(10)
    versions = [int(event.resource_version) for event in events]
    assert versions == sorted(set(versions))
    added = [event.manifest["metadata"]["name"] for event in events if event.type is EventType.ADDED]
    assert sorted(added) == sorted(["shared", *(f"w{writer}-{index}" for writer in range(4) for index in range(50))])
    (shared,) = (item for item in cluster.list(CONFIG_MAP).items if item["metadata"]["name"] == "shared")
    assert shared["data"] == {f"w{writer}": "49" for writer in range(4)}
    cluster.close()
