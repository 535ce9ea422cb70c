"""Operator and gateway start without the libraries that their images leave out."""

from __future__ import annotations

import subprocess
import sys

import pytest

_WITHOUT = """
import importlib, sys
for name in ("numpy", "torch", "ray", "openvino", "onnx", "onnxruntime"):
    sys.modules[name] = None
importlib.import_module(sys.argv[1])
"""


@pytest.mark.parametrize("module", ["penstock_operator.main", "penstock_serving.gateway.main"])
def test_it_is_imported_without_what_computes(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT, module], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
