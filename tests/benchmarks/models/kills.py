"""A search that is killed at ten random moments ends as one that was not, and repeats no finished trial."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tests.benchmarks.models.inputs import ROOT, Input
from tests.benchmarks.models.searching import PROFILES
from tests.benchmarks.report import progress, publish

from penstock.api.optimization import OptimizationProfileSpec
from penstock.optimization.progress import OptimizationRequest, RunIdentity, RunResult
from penstock.optimization.variants import SourceRequest
from penstock.serving.manifest import ModelFormat
from penstock_runtime.signing import make_keys, public_key, verify_statement

_KILLS = 10
_SECONDS = 600.0
_POLL = 0.05


@dataclass(frozen=True, slots=True)
class Ended:
    """What a search left."""

    result: RunResult
    trials: tuple[str, ...]
    """Names of the ledger's files, which are those of the trials."""
    seconds: float


def run(model: Input, profile: str, work: Path) -> None:
    """Search once undisturbed, once with kills, and publish both."""
    make_keys(work / "key.pem")
    progress("kills: a search without any")
    calm = _finish(_request(model, profile, work / "calm", work))
    progress(f"kills: the same search with {_KILLS}")
    killed, kept, lost = _disturbed(_request(model, profile, work / "killed", work), calm.seconds)
    names = [name.split("-", 1)[1] for name in killed.trials]
    rows: list[dict[str, Any]] = [
        _row("undisturbed", calm, kills=0, repeated=0, lost=0),
        _row(f"killed, {kept} trials kept over kills", killed, _KILLS, len(names) - len(set(names)), lost),
    ]
    same = (calm.result.verdict, calm.result.recipe) == (killed.result.verdict, killed.result.recipe)
    notes = [f"Same verdict and same recipe: {'yes' if same else 'NO'}.", calm.result.summary, killed.result.summary]
    publish("kills", f"SIGKILL at {_KILLS} random moments of a search on {model.name}", rows, notes)


def _request(model: Input, profile: str, folder: Path, work: Path) -> OptimizationRequest:
    manifest = yaml.safe_load((PROFILES / f"{profile}.yaml").read_text())
    return OptimizationRequest(
        model=SourceRequest(
            path=str(model.path),
            format=ModelFormat.SAFETENSORS,
            import_path=model.import_path,
            python_path=(str(ROOT),),
        ),
        name=model.name,
        profile=f"OptimizationProfile/{profile}",
        spec=OptimizationProfileSpec.model_validate(manifest["spec"]),
        data_uri=model.data.as_uri(),
        store=(folder / "store").as_uri(),
        run_folder=(folder / "run").as_uri(),
        identity=RunIdentity(namespace="default", run=folder.name, job="kills-1"),
        workspace=str(folder / "workspace"),
        signing_key=str(work / "key.pem"),
    )


def _start(request: OptimizationRequest) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock_optimizer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(request.model_dump_json().encode() + b"\n")
    process.stdin.close()
    return process


def _finish(request: OptimizationRequest) -> Ended:
    began = time.monotonic()
    process = _start(request)
    status = process.wait(_SECONDS)
    if status != 0:
        raise RuntimeError(f"the search ended with {status}")
    folder = Path(request.run_folder.removeprefix("file://")) if request.run_folder else Path()
    key = public_key(Path(request.signing_key))
    result = verify_statement((folder / "result.json").read_bytes(), [key])[0].result
    if result is None:
        raise RuntimeError("the search left no result")
    return Ended(result, _ledger(request), time.monotonic() - began)


def _ledger(request: OptimizationRequest) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in Path(request.workspace).glob("searches/*/ledger/*.json")))


def _disturbed(request: OptimizationRequest, usual_seconds: float) -> tuple[Ended, int, int]:
    """The search, killed again and again; how many trials outlived a kill, and how many did not."""
    moments = random.Random(0)
    kept = lost = 0
    for number in range(1, _KILLS + 1):
        process = _start(request)
        _wait(process, moments.uniform(0.05, 0.3) * usual_seconds)
        before = set(_ledger(request))
        # The kernel ends a child with its parent, so the whole tree goes by this.
        os.kill(process.pid, signal.SIGKILL)
        process.wait(_SECONDS)
        after = set(_ledger(request))
        kept, lost = len(after), lost + len(before - after)
        progress(f"kills: {number} of {_KILLS}, {len(after)} trials kept")
    return _finish(request), kept, lost


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Until a moment has come; a search that ends before is killed no more, since there is nothing to kill."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(_POLL)


def _row(what: str, ended: Ended, kills: int, repeated: int, lost: int) -> dict[str, Any]:
    return {
        "search": what,
        "kills": kills,
        "verdict": str(ended.result.verdict),
        "recipe": ended.result.recipe or "",
        "trials": len(ended.trials),
        "repeated": repeated,
        "lost": lost,
        "last run s": ended.seconds,
    }
