"""Some seconds of `tests.fuzz messages`, always the same; and that its judges find what is planted."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.fuzz import messages

from penstock.serving.manifest import DataType
from penstock_serving.replica.grpc import answers, fields
from penstock_serving.replica.grpc.messages import MessageDecoder


def run(judge: Callable[[], None], examples: int, phases: Collection[Phase] = tuple(Phase)) -> None:
    settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        phases=phases,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )(judge)()


@pytest.mark.parametrize(
    ("judge", "examples"),
    [
        (messages.same_as_http, 150),
        (messages.taken_apart, 300),
        (messages.answered_or_refused, 200),
        (messages.encoding, 100),
    ],
    ids=[
        "a request is what HTTP's codec says",
        "taking apart loses nothing",
        "anything is answered or refused",
        "an answer can be read",
    ],
)
def test_grpcs_messages_agree_with_http_and_with_protobuf(judge: Callable[[], None], examples: int) -> None:
    run(judge, examples)


class Forgetful(MessageDecoder):
    """Remembers of a request with an id that it is urgent, and nothing else."""

    def decode(self, body: bytes | bytearray, start: int, end: int) -> Any:
        request = super().decode(body, start, end)
        request.priority = 1 if request.id else request.priority
        return request


@pytest.mark.parametrize(
    ("plant", "judge", "drawn"),
    [
        ((messages, "MessageDecoder", Forgetful), messages.same_as_http, (st.data(),)),
        ((fields, "_ID", 0x0A), messages.taken_apart, (messages.wires(), st.binary(max_size=6))),
        (
            (answers, "varint", lambda number: bytes((number & 0x0F,))),
            messages.encoding,
            (st.sampled_from(sorted(DataType)), st.data()),
        ),
    ],
    ids=["a priority that is wrong", "a name taken for the id", "lengths that are cut"],
)
def test_what_is_planted_is_found(
    plant: tuple[Any, str, Any], judge: Any, drawn: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*plant)
    with pytest.raises((AssertionError, DecodeError, BaseExceptionGroup)):
        run(given(*drawn)(judge.hypothesis.inner_test), 300, phases=[Phase.generate])
