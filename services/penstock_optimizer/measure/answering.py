"""The main of a child that answers one request by its pipe and ends."""

from __future__ import annotations

import logging
from collections.abc import Callable

from penstock.errors import Invalid
from penstock.models import Frozen
from penstock_optimizer.measure.channel import serve_lines

logger = logging.getLogger(__name__)


def answer_one_request(answer: Callable[[bytes], Frozen], refuse: Callable[[str], Frozen]) -> None:
    """Read one line, and write one.

    Args:
        answer: gives the answer to a line.
        refuse: gives the answer where that raised, from what is wrong.
    """
    pipe = serve_lines()
    try:
        given = answer(pipe.first_line())
    except Invalid as error:
        given = refuse(error.message)
    except Exception as error:
        logger.exception("the request could not be answered")
        given = refuse(f"{type(error).__name__}: {error}")
    pipe.send(given)
