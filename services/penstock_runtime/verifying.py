"""Signatures are checked in a process of their own: the libraries for it take 19 MiB, which a replica would keep for life.

    python -m penstock_runtime.verifying FOLDER

reads the trusted keys as a JSON list from its standard input. Exit status: 0 for a good signature; 3 with the reason and
the message as a JSON list on its standard output.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from penstock.api.conditions import Reason
from penstock.errors import Invalid, Unavailable

_REFUSED: Final = 3
_SECONDS: Final = 300.0


def verify_in_child(folder: Path, trusted: Sequence[str]) -> None:
    """`penstock_runtime.signing.verify` in a child.

    Args:
        folder: of the model.
        trusted: public keys in PEM.

    Raises:
        Invalid: SignatureMissing, SignatureInvalid or KeyNotTrusted.
        Unavailable: the child could not do its work.
    """
    command = [sys.executable, "-m", "penstock_runtime.verifying", str(folder)]
    try:
        ran = subprocess.run(
            command, input=json.dumps(list(trusted)), capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(
            Reason.REPLICA_FAILED, f"the signature of {folder} was not checked within {_SECONDS:.0f} s"
        ) from error
    if ran.returncode == _REFUSED:
        reason, message = json.loads(ran.stdout)
        raise Invalid(Reason(reason), message)
    if ran.returncode != 0:
        last = (ran.stderr.strip().splitlines() or ["no message"])[-1]
        raise Unavailable(
            Reason.REPLICA_FAILED, f"the signature of {folder} could not be checked (exit {ran.returncode}): {last}"
        )


def main() -> int:
    """Check one folder; the exit status."""
    from penstock_runtime.signing import verify  # noqa: PLC0415 -- only the child needs it

    try:
        verify(Path(sys.argv[1]), json.load(sys.stdin))
    except Invalid as error:
        json.dump([error.reason, error.message], sys.stdout)
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
