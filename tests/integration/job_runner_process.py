"""A process that runs the Jobs of an embedded store until it is ended: python job_runner_process.py STORE FOLDER."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_operator.runtime.jobs.runner import JobRunner

if __name__ == "__main__":
    runner = JobRunner(EmbeddedCluster(Path(sys.argv[1])), Path(sys.argv[2]))
    runner.prepare()
    runner.controller.start()
    threading.Event().wait(120)
