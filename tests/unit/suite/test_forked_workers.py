"""Ray's workers that are forked after their imports: what Ray draws by chance is each one's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DRAWN = """
import os, threading
from tests.integration import forked_worker
from ray import NodeID
print(len(os.listdir("/proc/self/task")), flush=True)
for _ in range(2):
    if os.fork() == 0:
        draw = lambda: print(NodeID.from_random().hex(), flush=True)
        draw()
        other = threading.Thread(target=draw)
        other.start()
        other.join()
        os._exit(0)
    os.wait()
"""


def test_two_draw_different_ids_and_are_forked_from_a_process_of_one_thread() -> None:
    command = ["env", "OMP_NUM_THREADS=1", sys.executable, "-c", DRAWN]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True, timeout=120
    )
    threads, *ids = done.stdout.split()
    assert threads == "1"
    assert len(set(ids)) == len(ids) == 4
