"""Each image's packages, as its layers hold them and with nothing else in reach: what runs in it can be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from images.catalogue import IMAGES, ImageName
from images.packages import export, install
from images.python import Interpreter
from images.source import install_source, read_project

REPOSITORY = Path(__file__).resolve().parents[2]
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
_IMPORT_ALL = """
import importlib, json, pkgutil, sys, warnings
warnings.simplefilter("ignore")
failed = {}
def visit(name):
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        failed[name] = str(error)
        return
    for found in pkgutil.iter_modules(getattr(module, "__path__", [])):
        if found.name != "__main__":
            visit(f"{name}.{found.name}")
for name in sys.argv[1:]:
    visit(name)
loaded = [name for name in ("torch", "ray", "numpy", "openvino", "kubernetes") if name in sys.modules]
print("FOUND" + json.dumps({"failed": failed, "loaded": loaded}))
"""
# An engine whose library an image lacks says so when a model asks for it.
_OPTIONAL = {f"penstock_runtime.engines.{name}" for name in ("litert", "torch_engine", "torch_program")}


@pytest.mark.parametrize(
    ("name", "roots", "absent"),
    [
        pytest.param(ImageName.OPERATOR, ["penstock_operator"], {"torch", "ray", "openvino"}, id="the operator"),
        pytest.param(
            ImageName.GATEWAY,
            ["penstock_serving.gateway"],
            {"torch", "ray", "numpy", "openvino", "kubernetes"},
            id="the gateway",
        ),
        pytest.param(
            ImageName.RUNTIME, ["penstock_serving", "penstock_runtime"], {"torch", "kubernetes"}, id="the runtime"
        ),
    ],
)
def test_what_an_image_runs_can_be_imported_in_it(
    tmp_path: Path, name: ImageName, roots: list[str], absent: set[str]
) -> None:
    image = IMAGES[name]
    interpreter = Interpreter.from_path(f"/usr/bin/python{VERSION}")
    install(export(image, REPOSITORY), image.programs, tmp_path, interpreter, REPOSITORY)
    install_source(image, tmp_path, interpreter, read_project(REPOSITORY))
    packages = tmp_path / interpreter.packages.relative_to("/")
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-B", "-c", _IMPORT_ALL, *roots],
        env={"PYTHONPATH": str(packages), "HOME": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.rsplit("FOUND", 1)[1])
    assert {module: error for module, error in found["failed"].items() if module not in _OPTIONAL} == {}
    assert set(found["loaded"]) & absent == set()
