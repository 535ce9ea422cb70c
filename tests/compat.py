"""`make compat`: does Ray's next release still do what the operator leans on? In an environment of its own.

What is tried is Serve's REST API with its echo of what was deployed, the hooks of the scaling policy, health checks and graceful ends
of replicas, and the whole way from an applied deployment to an answer.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

from tests.integration.local_ray import PLAIN_RAY

ROOT: Final = Path(__file__).resolve().parents[1]
ENVIRONMENT: Final = ROOT / "build" / "compat"
LEANING: Final = (
    "tests/contract/test_serve_rest_contract.py",
    "tests/unit/scaling/test_scaling_in_serve.py",
    "tests/integration/test_serve_replica.py",
    "tests/integration/test_operator_serving.py",
)
"""Tests of what Ray promises to nobody, or may change."""
_EXTRA: Final = "ray[serve]"


def pinned_release(project: str) -> str:
    """Ray's release in a pyproject.toml. Raises `StopIteration` where none is pinned."""
    extras = tomllib.loads(project)["project"]["optional-dependencies"]
    wanted = (each for packages in extras.values() for each in packages)
    return next(each.partition("==")[2] for each in wanted if each.startswith(f"{_EXTRA}=="))


def _uv(*arguments: str) -> None:
    environment = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(ENVIRONMENT)}
    subprocess.run([str(ROOT / "scripts" / "uv"), *arguments], cwd=ROOT, env=environment, check=True)


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ENVIRONMENT / "bin" / "python"), *arguments], cwd=ROOT, check=False, text=True, stdout=subprocess.PIPE
    )


def main() -> int:
    """Install and try it; the exit status: the tests', or 0 where there is no other release to be tried."""
    parser = argparse.ArgumentParser(prog="make compat", description=__doc__)
    parser.add_argument("--ray", default="", help="a version; the newest that the package index has, previews included")
    asked = str(parser.parse_args().ray)
    pinned = pinned_release((ROOT / "pyproject.toml").read_text())
    _uv("sync", "--frozen", "--extra", "all", "--quiet")
    wanted = f"{_EXTRA}=={asked}" if asked else _EXTRA
    _uv("pip", "install", "--quiet", "--python", str(ENVIRONMENT), "--prerelease=allow", "--upgrade", wanted)
    found = _python("-c", "import ray; print(ray.__version__)").stdout.strip()
    if found == pinned and not asked:
        print(
            f"The package index has no release of Ray after {pinned}, which is the one in use. Try another with RAY=VERSION."
        )
        return 0
    print(f"Ray {found}, where {pinned} is in use:", flush=True)
    return subprocess.run(
        [str(ENVIRONMENT / "bin" / "python"), "-m", "pytest", "-n0", "-q", *LEANING],
        cwd=ROOT,
        check=False,
        env={**os.environ, PLAIN_RAY: "1"},
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
