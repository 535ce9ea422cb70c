"""The wheel, made of the source archive, holds all that the packages read: what git keeps in their folders, and what is shipped from elsewhere."""

from __future__ import annotations

import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WHEEL = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("wheel")
    command = [str(ROOT / "scripts/uv"), "build", "--quiet", "--out-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=200)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def tracked(folder: str) -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z", folder], cwd=ROOT, check=True, capture_output=True, text=True)
    return [Path(name) for name in done.stdout.split("\0") if name]


@pytest.mark.parametrize("package", WHEEL["packages"])
def test_it_holds_all_files_of(package: str, names: set[str]) -> None:
    wanted = {path.relative_to(Path(package).parent).as_posix() for path in tracked(package)}
    assert wanted
    assert wanted - names == set()


def test_some_of_them_are_no_python(names: set[str]) -> None:
    """Else the test above would not see the kind of file that packages forget."""
    kinds = {Path(name).suffix for name in names if ".dist-info/" not in name}
    assert {".py", ".html", ".css", ".svg", ".binpb", ".yaml"} <= kinds


@pytest.mark.parametrize(("source", "target"), WHEEL["force-include"].items())
def test_it_holds_what_is_shipped_from_elsewhere(source: str, target: str, names: set[str]) -> None:
    wanted = {f"{target}{path.as_posix().removeprefix(source)}" for path in tracked(source)}
    assert wanted
    assert wanted - names == set()


def test_it_holds_nothing_else(names: set[str]) -> None:
    found = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert found == {Path(each).name for each in WHEEL["packages"]}
