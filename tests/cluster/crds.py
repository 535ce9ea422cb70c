"""Custom resources that a test needs: applied, and waited for until the API server really serves them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

_SECONDS = 60.0


class Kubectl(Protocol):
    """Runs kubectl with arguments, and answers its standard output; raises AssertionError where it fails."""

    def __call__(self, *arguments: str) -> str: ...


def serve(kubectl: Kubectl, manifests: Path) -> None:
    """Apply a file or folder of CRDs and wait until kubectl finds their kinds.

    To wait for the condition Established is not enough: a CRD just created may have no conditions at all, at which
    `kubectl wait` fails; and discovery, by which kubectl knows kinds, follows the condition later.

    Raises:
        AssertionError: they are not served within a minute.
    """
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(manifests))
    found = json.loads(kubectl("get", "--output=json", "-f", str(manifests)))
    specs = [each["spec"] for each in found.get("items", [found])]
    wanted = ",".join(f"{each['names']['plural']}.{each['group']}" for each in specs)
    _until_it_works(lambda: kubectl("get", wanted, "--all-namespaces", "--output=name"))


def _until_it_works(run: Callable[[], object]) -> None:
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            run()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return
