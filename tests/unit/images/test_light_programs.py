"""Operator and gateway start without the libraries that their images leave out."""

from __future__ import annotations

import subprocess
import sys

import pytest

_WITHOUT = """
import importlib, sys
for name in sys.argv[2:]:
    sys.modules[name] = None
importlib.import_module(sys.argv[1])
"""


_ENGINES = ("torch", "ray", "openvino", "onnx", "onnxruntime")


@pytest.mark.parametrize(
    ("module", "without"),
    [("penstock_operator.main", _ENGINES), ("penstock_serving.gateway.main", ("numpy", *_ENGINES))],
    ids=["the operator, which weighs evidence with numpy", "the gateway"],
)
def test_it_is_imported_without_what_computes(module: str, without: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT, module, *without], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
