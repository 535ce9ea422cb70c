"""Runs `penstock optimize` as a user would, and reads what it left."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.benchmarks.models.inputs import ROOT, Input

from penstock.optimization.progress import RunResult
from penstock.optimization.report import Report
from penstock_runtime.signing import make_keys

PROFILES = Path(__file__).parent / "profiles"
_SECONDS = 1500


@dataclass(frozen=True, slots=True)
class Found:
    """How a search ended."""

    result: RunResult
    report: Report

    @property
    def artifact(self) -> Path:
        """The folder of the accepted artifact."""
        if self.result.artifact_uri is None:
            raise RuntimeError(f"no artifact: {self.result.summary}")
        return Path(urlsplit(self.result.artifact_uri).path)


def workspace(work: Path) -> Path:
    """Where the command keeps its ledgers, given that the user's cache folder is one under `work`."""
    return work / "cache" / "penstock" / "optimizer"


def command(model: Input, profile: Path, work: Path) -> list[str]:
    """The command line that optimizes a model by a profile."""
    return [
        *(str(Path(sys.executable).with_name("penstock")), "optimize", str(model.path)),
        *("--name", model.name, "--profile", str(profile), "--data", str(model.data)),
        *("--import-path", model.import_path, "--python-path", str(ROOT)),
        *("--output", (work / "store").as_uri()),
        *("--signing-key", str(work / "key.pem"), "--threads", "1", "--json"),
    ]


def search(model: Input, profile: Path, work: Path) -> Found:
    """Optimize, with the command's own progress on standard error.

    Raises:
        RuntimeError: no verdict was reached.
    """
    work.mkdir(parents=True, exist_ok=True)
    make_keys(work / "key.pem")
    ran = subprocess.run(
        command(model, profile, work),
        env={**os.environ, "XDG_CACHE_HOME": str(work / "cache")},
        stdout=subprocess.PIPE,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if ran.returncode != 0:
        raise RuntimeError(f"penstock optimize ended with {ran.returncode}: {ran.stdout[-2000:]}")
    result = RunResult.model_validate_json(ran.stdout)
    if result.report_uri is None:
        raise RuntimeError(f"no report: {result.summary}")
    report = Path(urlsplit(result.report_uri).path) / "report.json"
    return Found(result, Report.model_validate_json(report.read_bytes()))
