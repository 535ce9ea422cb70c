"""Some seconds of `tests.fuzz codec`, always the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from tests.fuzz import codec


@pytest.mark.parametrize(
    ("judge", "examples"),
    [(codec.decoding, 200), (codec.arbitrary_bodies, 100), (codec.encoding, 150)],
    ids=["a request is what its simple reading says", "anything is answered or refused", "an answer can be read"],
)
def test_the_codec_agrees_with_a_simple_model(judge: Callable[[], None], examples: int) -> None:
    settings(max_examples=examples, derandomize=True, database=None)(judge)()
