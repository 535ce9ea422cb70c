"""One check of everything that needs a GPU: `python -m tests.benchmarks.gpu [PART …]`.

Parts: `tests` (every GPU-marked test), `resnet50` and `minilm` (a search, then torch eager fp32 and what was accepted under
load). Each takes less than ten minutes and adds to `build/gpu-check/report.json` and `report.html`. Without a GPU nothing
runs, and the exit status is 3; `--device cpu` is a dry run of the same parts on a tiny model, which measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.gpu.figures import NO_GPU, Figures, as_rows, ends_of_tests, figures, page, problems, speedups
from tests.benchmarks.gpu.watching import STATE, GpuMemory
from tests.benchmarks.models import inputs
from tests.benchmarks.models.searching import search, workspace
from tests.benchmarks.report import machine, progress

from penstock.api.optimization import Workload
from penstock.errors import PenstockError
from penstock.optimization.measurements import Scenario
from penstock.optimization.variants import DataSplits
from penstock_optimizer.measure.load import load_test
from penstock_runtime.hardware import probe

OUT: Final = Path("build/gpu-check")
_PROFILES: Final = Path(__file__).parent / "profiles"
_MODELS: Final = {"resnet50": inputs.resnet50, "minilm": inputs.minilm}
_TESTS: Final = "tests"
_NOTHING_RAN: Final = 3
_TEST_SECONDS: Final = 580
_LOAD_SECONDS: Final = 20.0
_SAMPLES: Final = {"resnet50": "random weights and images: speed alone", "minilm": "published weights, docstrings"}


def main() -> int:
    """Run the parts; 0 only where all of them ran on a GPU and passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[_TESTS, *_MODELS, []], metavar="PART")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    given = parser.parse_args()
    gpu = given.device == "cuda"
    if gpu and not probe().gpus:
        print(f"gpu-check: {NO_GPU}", file=sys.stderr)
        return _NOTHING_RAN
    document = _document(gpu=gpu)
    for part in given.parts or [_TESTS, *_MODELS]:
        progress(f"gpu-check: {part}")
        document["errors"].pop(part, None)
        try:
            if part == _TESTS:
                document["tests"] = _run_tests()
            else:
                kept = [row for row in document["rows"] if row["model"] != part]
                rows, problem = _measure(part, gpu=gpu)
                document["rows"] = kept + as_rows(rows)
                document["errors"] |= {part: problem} if problem else {}
        except (RuntimeError, PenstockError, subprocess.SubprocessError) as error:
            document["errors"][part] = str(error)[-2000:]
        _write(document, gpu=gpu)
    for each in document["problems"]:
        print(f"gpu-check: {each}", file=sys.stderr)
    print(f"gpu-check: {OUT / 'report.html'}")
    return 1 if document["problems"] else 0


def _document(*, gpu: bool) -> dict[str, Any]:
    """What earlier parts found on the same kind of device, or an empty one."""
    file = OUT / "report.json"
    if file.is_file():
        found: dict[str, Any] = json.loads(file.read_text())
        if found["gpu"] is gpu:
            return found
    return {"title": "Penstock on a GPU", "gpu": gpu, "rows": [], "tests": None, "errors": {}, "notes": []}


def _write(document: dict[str, Any], *, gpu: bool) -> None:
    document["when"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    document["machine"] = machine()
    document["hardware"] = probe().model_dump(mode="json")
    document["notes"] = [f"{name}: {what}." for name, what in _SAMPLES.items()] + _state(gpu=gpu)
    document["speedups"] = speedups([Figures(**row) for row in document["rows"]])
    document["problems"] = problems(document)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "report.json").write_text(json.dumps(document, indent=2) + "\n")
    (OUT / "report.html").write_text(page(document))


def _state(*, gpu: bool) -> list[str]:
    if not gpu:
        return ["A DRY RUN WITHOUT A GPU, on the digits model: these figures say nothing of a GPU."]
    return subprocess.run(STATE, capture_output=True, text=True, timeout=20, check=False).stdout.splitlines()


def _run_tests() -> dict[str, list[str]]:
    """Every GPU-marked test, whose skips count as not run."""
    junit = OUT.absolute() / "tests.xml"
    OUT.mkdir(parents=True, exist_ok=True)
    junit.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-n0", "-m", "gpu", "-q", f"--junit-xml={junit}", "tests"]
    subprocess.run(command, timeout=_TEST_SECONDS, check=False, env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""})
    if not junit.is_file():
        raise RuntimeError("pytest ended without a report; see above")
    return ends_of_tests(junit.read_text())


def _measure(name: str, *, gpu: bool) -> tuple[list[Figures], str | None]:
    """Search, then load torch eager fp32 and what was accepted; and why nothing was."""
    cache = OUT.absolute() / "inputs"
    model = _MODELS[name](cache) if gpu else inputs.digits(cache)
    work = OUT.absolute() / ("work" if gpu else "dry-run")
    report = search(model, _PROFILES / f"{name if gpu else 'digits'}.yaml", work).report
    chosen = report.candidate(report.chosen)
    eager = report.candidates[0]
    subjects = [("torch eager fp32", eager), *([(chosen.recipe.label, chosen)] if chosen else [])]
    rows = []
    for what, candidate in subjects:
        folders = list(workspace(work).glob(f"searches/*/variants/{candidate.recipe.key}"))
        if not folders:
            raise RuntimeError(f"{what} was not built: {candidate.reason}")
        newest = max(folders, key=lambda path: path.stat().st_mtime)
        data = DataSplits(digest="", calibration=str(_test(model)), validation=None, test=str(_test(model)))
        with GpuMemory(gpu=gpu) as memory:
            load, _ = load_test(newest, data, _workload(report.profile_spec.workload), None, seconds=_LOAD_SECONDS)
        rows.append(figures(name, what, load, candidate.timings, memory.mib))
    return rows, None if chosen else f"nothing was accepted: {report.summary}"


def _test(model: inputs.Input) -> Path:
    found = model.data / "test.npz"
    return found if found.is_file() else next(iter(sorted(model.data.glob("*.npz"))))


def _workload(of: Workload) -> Workload:
    """Requests of clients that ask again as soon as they are answered."""
    return of.model_copy(update={"scenario": Scenario.SERVER})


if __name__ == "__main__":
    sys.exit(main())
