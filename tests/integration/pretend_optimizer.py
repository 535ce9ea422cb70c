"""Stands for the optimizer: notes that it was started, reports, and gives a verdict.

While the file `wait` lies beside the notes, it reports and does not end.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from penstock.optimization.progress import PROGRESS_FILE, RESULT_FILE, OptimizationRequest, Progress, RunResult
from penstock.optimization.report import SearchVerdict
from penstock.optimization.statements import Statement, digest_of_profile
from penstock.optimization.trials import Stage
from penstock_operator.optimization.job import REQUEST_VARIABLE
from penstock_runtime.signing import sign_statement
from penstock_runtime.storage import Store

if __name__ == "__main__":
    request = OptimizationRequest.model_validate_json(os.environ[REQUEST_VARIABLE])
    workspace = Path(request.workspace)
    with (workspace / "started").open("a") as notes:
        notes.write(f"{os.getpid()}\n")
    assert request.run_folder is not None
    store = Store(request.run_folder)

    def tell(name: str, **said: Progress | RunResult) -> None:
        about = {"identity": request.identity, "profile_digest": digest_of_profile(request.spec)}
        statement = Statement.model_validate({**about, **said})
        store.write(name, sign_statement(statement, Path(request.signing_key)))

    tell(PROGRESS_FILE, progress=Progress(stage=Stage.MEASURE, message="pretending"))
    deadline = time.monotonic() + 60
    while (workspace / "wait").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    result = RunResult(verdict=SearchVerdict.REJECTED, summary="It was only pretended.")
    tell(RESULT_FILE, result=result)
