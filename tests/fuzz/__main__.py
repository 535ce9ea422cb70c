"""`python -m tests.fuzz {codec,front,messages,server} [--minutes N]`: fuzz for a while; exit 1 and show the example if there is a finding."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Final

import hypothesis
from tests.fuzz import codec, front, messages, server

TARGETS: Final[Mapping[str, tuple[Callable[..., None], ...]]] = {
    "codec": (codec.decoding, codec.arbitrary_bodies, codec.encoding),
    "front": (front.conversation, front.arbitrary_bytes),
    "messages": (messages.same_as_http, messages.taken_apart, messages.answered_or_refused, messages.encoding),
    "server": (server.answering,),
}
_EXAMPLES: Final = 2000


def main() -> int:
    """Fuzz; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=1.0)
    asked = parser.parse_args()
    settings = hypothesis.settings(
        max_examples=_EXAMPLES,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    end = time.monotonic() + asked.minutes * 60
    judges, examples = [settings(judge) for judge in TARGETS[asked.target]], 0
    while judges and time.monotonic() < end:
        for judge in tuple(judges):
            seed = secrets.randbits(64)
            try:
                hypothesis.seed(seed)(judge)()
            except Exception:  # noqa: BLE001 -- whatever it is, it is a finding
                judges.remove(judge)
                print(f"FINDING by {judge.__name__}, seed {seed}; it is not asked again", flush=True)
                traceback.print_exc(file=sys.stdout)
            examples += _EXAMPLES
        print(f"{examples} examples", flush=True)
    found = len(TARGETS[asked.target]) - len(judges)
    print(f"done: {examples} examples, {found} findings", flush=True)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
