"""Between getting the lease and acting: see what the former leader wrote last."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from penstock.errors import PenstockError

log = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 15.0


class Accession:
    """Calls `refresh` after each election; until that is done, this process must not act.

    A standby's copies may lag behind what the former leader wrote a moment ago, however promptly it is told.

    Args:
        refresh: brings all copies up to date. May raise any `PenstockError`, and is then called again. Is told whether to be
            patient: one kind that cannot be listed for long must not keep all others' objects from being looked after.
    """

    def __init__(self, refresh: Callable[[bool], None]) -> None:
        self._refresh = refresh
        self._term = 0
        self._done = 0
        self._lock = threading.Lock()

    @property
    def complete(self) -> bool:
        """Whether all is up to date for the present term."""
        return self._done == self._term and self._term > 0

    def begin(self) -> None:
        """This process was elected. Does not block."""
        with self._lock:
            self._term += 1
            term = self._term
        threading.Thread(target=self._prepare, args=(term,), name="accession", daemon=True).start()

    def end(self) -> None:
        """It leads no more."""
        with self._lock:
            self._term += 1

    def _prepare(self, term: int) -> None:
        waiting, began = threading.Event(), time.monotonic()
        while self._term == term:
            try:
                self._refresh(time.monotonic() - began < _PATIENCE_SECONDS)
            except PenstockError as error:
                log.warning("elected, but what is there cannot be read: %s", error)
                waiting.wait(_AGAIN_SECONDS)
                continue
            with self._lock:
                if self._term == term:
                    self._done = term
                    log.info("leading")
            return
