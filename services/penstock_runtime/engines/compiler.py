"""The C++ compiler that Inductor uses."""

from __future__ import annotations

import os
import shutil


def missing_compiler() -> str | None:
    """What is missing; None where there is a compiler: `$CXX`, else g++ or clang++."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
    if any(shutil.which(name) for name in names):
        return None
    return f"there is no C++ compiler ({' or '.join(names)}), with which torch compiles: install g++"
