"""Runs the benchmarks of optimized models: all of them, or those named on the command line."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tests.benchmarks import prediction_cache
from tests.benchmarks.models import guard, inputs, kills, optimizing, serving
from tests.benchmarks.models.searching import PROFILES, search

from penstock_runtime.signing import make_keys

BENCHMARKS = ("optimize", "guard", "kills", "serving", "cache")
_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "penstock" / "benchmarks"
_WORK = Path("build/bench/models").absolute()


def main() -> None:
    """Run what is asked for. Searches resume where an earlier run of the same checkout ended."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.models", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--minilm", type=Path, help="a local folder of all-MiniLM-L6-v2; default: the packaged one")
    parser.add_argument("--model", action="append", help="only this model of `optimize`; repeatable")
    given = parser.parse_args()
    names = given.names or BENCHMARKS
    models = {
        "digits": inputs.digits(_CACHE),
        "minilm": inputs.minilm(_CACHE, given.minilm),
        "resnet50": inputs.resnet50(_CACHE),
    }
    if "optimize" in names:
        optimizing.run(models, _WORK, tuple(given.model or models))
    if "guard" in names:
        guard.run(models, _WORK)
    if "kills" in names:
        kills.run(models["digits"], "digits-rapid", _WORK / "kills")
    if "serving" in names:
        found = search(models["digits"], PROFILES / "digits.yaml", _WORK)
        baseline = (
            models["digits"].path.parent.parent if models["digits"].path.is_file() else models["digits"].path.parent
        )
        serving.run(baseline / "model", found.artifact, make_keys(_WORK / "key.pem"))
    if "cache" in names:
        prediction_cache.main()


if __name__ == "__main__":
    main()
