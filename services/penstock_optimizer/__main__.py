"""`python -m penstock_optimizer`: one search, as `penstock.optimization.progress` describes it.

The request comes from the environment variable PENSTOCK_OPTIMIZATION_REQUEST, from the file that is the argument, or
from standard input. SIGTERM and SIGINT end it with all its children; the same request goes on where it stood.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Final

from pydantic import ValidationError

from penstock.errors import Invalid, PenstockError, Unavailable
from penstock.optimization.progress import (
    PROGRESS_FILE,
    RESULT_FILE,
    OptimizationRequest,
    Progress,
    RunResult,
)
from penstock.optimization.report import SearchVerdict
from penstock.optimization.statements import Statement, digest_of_profile
from penstock.optimization.trials import Stage
from penstock_optimizer.publishing.scope import check_scope
from penstock_optimizer.publishing.signing_key import with_key
from penstock_runtime.signing import sign_statement
from penstock_runtime.storage import Store
from penstock_runtime.trust import trust_named_authorities

logger = logging.getLogger("penstock_optimizer")

REQUEST_VARIABLE: Final = "PENSTOCK_OPTIMIZATION_REQUEST"
_FAILED: Final = 1
_TRY_AGAIN: Final = 75
_TOLD_SECONDS: Final = 1.0
"""A store is told no more often, unless the stage changes."""


class Stopped(BaseException):
    """A signal asked to end. Not an Exception, so that no trial takes it for its own failure."""


class Teller:
    """Tells standard output and the run folder where a search stands.

    Args:
        request: names the run folder, and what is signed for whom; None: there is none yet.

    Raises:
        Invalid: there is no store there, or the request does not say which run this is.
    """

    def __init__(self, request: OptimizationRequest | None = None) -> None:
        self._request = request
        self._store = Store(request.run_folder) if request is not None and request.run_folder is not None else None
        if self._store is not None and (request is None or request.identity is None):
            raise Invalid("RequestInvalid", "a request with a runFolder needs an identity: which run and Job it is of")
        self._told: tuple[float, Stage | None] = (0.0, None)

    def __call__(self, progress: Progress) -> None:
        """Tell of progress."""
        sys.stdout.write(progress.model_dump_json() + "\n")
        sys.stdout.flush()
        then, stage = self._told
        if self._store is not None and (progress.stage is not stage or time.monotonic() > then + _TOLD_SECONDS):
            self._write(PROGRESS_FILE, progress=progress)
            self._told = (time.monotonic(), progress.stage)

    def result(self, result: RunResult) -> None:
        """Tell the run folder how it ended."""
        if self._store is not None:
            self._write(RESULT_FILE, result=result)

    def _write(self, name: str, **said: Progress | RunResult) -> None:
        request = self._request
        assert self._store is not None  # noqa: S101 -- its callers looked
        assert request is not None  # noqa: S101 -- else there were no store
        assert request.identity is not None  # noqa: S101 -- as above
        statement = Statement.model_validate(
            {"identity": request.identity, "profile_digest": digest_of_profile(request.spec), **said}
        )
        self._store.write(name, sign_statement(statement, Path(request.signing_key)))


def main(arguments: list[str]) -> int:
    """Search; the exit status."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    trust_named_authorities(os.environ)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    teller = Teller()
    try:
        request = with_key(read_request(arguments))
        teller = Teller(request)
        if request.scoped_store:
            check_scope(request.store)
        from penstock_optimizer.search.driver import optimize  # noqa: PLC0415 -- a wrong request is refused at once

        result = optimize(request, teller)
        teller.result(result)
    except Stopped:
        logger.info("stopped by a signal; the same request goes on where this one stood")
        return _TRY_AGAIN
    except Unavailable as error:
        logger.error("%s: %s", error.reason, error.message)  # noqa: TRY400 -- deliberate: the message says it all
        return _TRY_AGAIN
    except PenstockError as error:
        logger.error("%s: %s", error.reason, error.message)  # noqa: TRY400 -- as above
        return _report_failure(teller, error)
    logger.info("%s: %s", result.verdict, result.summary)
    return 0


def read_request(arguments: list[str]) -> OptimizationRequest:
    """The request, from where it is given.

    Raises:
        Invalid: there is none, or it is none.
    """
    if arguments:
        try:
            text = Path(arguments[0]).read_text(encoding="utf-8")
        except OSError as error:
            raise Invalid("RequestInvalid", f"{arguments[0]} cannot be read: {error.strerror}") from error
    else:
        text = os.environ.get(REQUEST_VARIABLE) or sys.stdin.readline()
    try:
        return OptimizationRequest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the request"
        raise Invalid("RequestInvalid", f"{where}: {first['msg']}") from error


def _report_failure(teller: Teller, error: PenstockError) -> int:
    """Leave a result that says why there is no verdict, so that whoever follows the run folder learns it."""
    try:
        teller.result(RunResult(verdict=SearchVerdict.NO_DECISION, summary=error.message, error=str(error)))
    except Unavailable:
        logger.exception("the run folder could not be told either")
        return _TRY_AGAIN
    return _FAILED


def _stop(number: int, frame: FrameType | None) -> None:
    del frame
    # A second signal must not cut the end short, in which children are ended.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(signal.Signals(number).name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
