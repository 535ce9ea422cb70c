"""Where the key is by which a search signs: in a user's own file, or, in a pod, in the driver's memory alone.

A pod gets it as a variable. The driver takes it out of its environment before it starts any other process, and the kernel
then gives neither its memory nor its first environment to processes of the same user (PR_SET_DUMPABLE in prctl(2);
ptrace(2), "Ptrace access mode checking"). So a process that opens the model cannot reach the key, with a sandbox or without.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

from penstock.errors import Invalid
from penstock.optimization.progress import SIGNING_KEY_VARIABLE, OptimizationRequest

_PR_SET_DUMPABLE: Final = 4
_OWN: Final = "/proc/self/fd/"


def with_key(request: OptimizationRequest) -> OptimizationRequest:
    """The request with a file that this process, and no other, can read the key from.

    Raises:
        Invalid: the request names no file, and there is no variable.
    """
    pem = os.environ.pop(SIGNING_KEY_VARIABLE, None)
    if request.signing_key:
        return request
    if not pem:
        raise Invalid(
            "RequestInvalid", f"the request names no signingKey, and the variable {SIGNING_KEY_VARIABLE} holds none"
        )
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise Invalid("RequestInvalid", "this kernel does not let a process close its memory to others")
    handle = os.memfd_create("signing-key", os.MFD_CLOEXEC)
    os.write(handle, pem.encode())
    return request.model_copy(update={"signing_key": f"{_OWN}{handle}"})


def secrets_of(request: OptimizationRequest) -> tuple[Path, ...]:
    """Files that no process may see which opens the model."""
    return () if request.signing_key.startswith(_OWN) else (Path(request.signing_key),)
