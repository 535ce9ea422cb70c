"""What messages must tell: a message in other words passes; one that lacks the field, the value or the remedy does not."""

from __future__ import annotations

import re

import pytest
from tests.telling import Telling, assert_tells, telling, untold

MESSAGE = (
    "spec.scaling.minReplicas: 5 is more than maxReplicas (4 where it is left out):\nraise maxReplicas, or lower it"
)


def test_a_message_in_other_words_and_another_order_tells_the_same() -> None:
    other = "With MaxReplicas at 4, the 5 of spec.scaling.minReplicas cannot be."
    for message in (MESSAGE, other):
        assert_tells(message, "spec.scaling.minReplicas", "maxReplicas 5 4")
        assert re.search(telling("spec.scaling.minReplicas", "maxReplicas 5 4"), message)
        assert {"message": message} == {"message": Telling("spec.scaling.minReplicas", "maxReplicas 5 4")}


NOT_TOLD = [
    ("the field", MESSAGE, "spec.scaling.replicas 5", ["spec.scaling.replicas"]),
    ("the value", MESSAGE, "minReplicas 6", ["6"]),
    ("the remedy", MESSAGE, "minReplicas remove", ["remove"]),
    ("all of nothing", "", "a b", ["a", "b"]),
    ("a field, where one below it is", "spec.model.digest: no", "spec.model", ["spec.model"]),
    ("a field, where one of a longer name is", "minReplicasAtNight: 4", "minReplicas", ["minReplicas"]),
    ("a folder, where one below it is", "nothing at /a/b", "/a", ["/a"]),
    ("a number, where a longer one is", "not 4096, not 14", "4", ["4"]),
    ("a number, where a decimal has its digits", "from 0.4 to 4.5", "4", ["4"]),
    ("a number, where its negative is", "not -4", "4", ["4"]),
    ("a part of a grouped number", "1,024 or 4,000", "024 4", ["024", "4"]),
]


@pytest.mark.parametrize(
    ("message", "facts", "missing"), [row[1:] for row in NOT_TOLD], ids=[row[0] for row in NOT_TOLD]
)
def test_what_is_not_told_is_found_and_shown_with_the_whole_message(
    message: str, facts: str, missing: list[str]
) -> None:
    assert untold(message, facts) == missing
    with pytest.raises(AssertionError, match=re.escape(f"not told: {' '.join(missing)}; told: {message!r}")):
        assert_tells(message, facts)
    assert not re.search(telling(facts), message)
    assert Telling(facts) != message


@pytest.mark.parametrize(
    ("message", "facts"),
    [
        ("'x' has 3 (of 4), 5; and 6.", "x 3 4 5 6"),
        ('write s3://, --trusted-key=FILE or [-1, 2]: "auto"', 's3:// --trusted-key [-1 2] "auto"'),
        ("from 1-4 at 0.50%, v1.", "4 0.50% v1"),
    ],
    ids=["in brackets and before stops", "with signs of their own", "at the end of a range"],
)  # fmt: skip
def test_words_are_found_beside_punctuation(message: str, facts: str) -> None:
    assert_tells(message, facts)
    assert re.search(telling(facts), message)


def test_what_is_no_message_tells_nothing() -> None:
    assert Telling("None") != None  # noqa: E711 - that comparison is what is tested
