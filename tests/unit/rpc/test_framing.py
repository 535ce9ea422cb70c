"""gRPC's framing and status: what is taken, and what is told of the rest."""

from __future__ import annotations

import itertools

import pytest

from penstock.errors import Invalid
from penstock.protocol.refusals import QueueFull, Refusal
from penstock_serving.rpc.codes import CODES, RpcCode, code_of, refusal_lines, status_lines
from penstock_serving.rpc.framing import MessageReader, frame, parse_timeout, single_message

MOST = 100


def test_a_framed_message_is_read_again() -> None:
    body = frame(b"a message")
    compressed, end = single_message(body)
    assert not compressed
    assert body[5:end] == b"a message"
    assert single_message(b"\1" + body[1:]) == (True, end)


@pytest.mark.parametrize(
    ("body", "reason", "message"),
    [
        (b"", Refusal.BAD_REQUEST, "0 bytes"),
        (b"\0\0\0", Refusal.BAD_REQUEST, "prefix"),
        (frame(b"abc")[:-1], Refusal.BAD_REQUEST, "should have 3 bytes, but 2 came"),
        (frame(b"abc") + frame(b"d"), Refusal.BAD_REQUEST, "one message"),
        (b"\2" + frame(b"abc")[1:], Refusal.BAD_REQUEST, "flag 2"),
    ],
    ids=[
        "nothing",
        "half a prefix",
        "half a message",
        "two messages",
        "a flag without meaning",
    ],
)
def test_a_body_that_is_not_one_message_is_refused(body: bytes, reason: Refusal, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        single_message(body)
    assert caught.value.reason == reason
    assert message in caught.value.message


def test_a_streams_messages_are_the_same_however_they_are_cut() -> None:
    messages = [(False, b""), (False, b"one"), (True, b"x" * MOST), (False, b"two")]
    wire = b"".join(bytes((compressed,)) + frame(each)[1:] for compressed, each in messages)
    for size in (1, 2, 3, 5, 7, 64, len(wire)):
        reader = MessageReader()
        found = [reader.feed(wire[at : at + size], MOST) for at in range(0, len(wire), size)]
        assert list(itertools.chain(*found)) == messages
        reader.check_end()


@pytest.mark.parametrize(
    ("wire", "reason"),
    [(frame(b"x" * (MOST + 1))[:5], Refusal.LENGTH_TOO_LARGE), (b"\2\0\0\0\0", Refusal.BAD_REQUEST)],
    ids=["one that will be too large, before it comes", "one with a flag that has no meaning"],
)
def test_a_streams_message_that_cannot_be_taken_ends_it(wire: bytes, reason: Refusal) -> None:
    with pytest.raises(Invalid) as caught:
        MessageReader().feed(wire, MOST)
    assert caught.value.reason == reason


def test_a_stream_that_ends_within_a_message_is_wrong() -> None:
    reader = MessageReader()
    assert reader.feed(frame(b"abc")[:-1], MOST) == []
    with pytest.raises(Invalid, match="within a message"):
        reader.check_end()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"2H", 7200), (b"3M", 180), (b"1S", 1), (b"100m", 0.1), (b"5u", 5e-6), (b"99999999n", 0.099999999), (b"0n", 0)],
)
def test_a_timeout_is_read_in_each_unit(value: bytes, seconds: float) -> None:
    assert parse_timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [b"1", b"S", b"123456789S", b"-1S", b"1.5S", b"1s", b"1S ", b"1h", "1٣S".encode()])
def test_what_is_no_timeout_is_refused(value: bytes) -> None:
    with pytest.raises(Invalid, match="grpc-timeout"):
        parse_timeout(value)


def test_every_refusal_has_a_code() -> None:
    assert set(CODES) == set(Refusal)
    assert RpcCode.OK not in CODES.values()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Invalid(Refusal.BAD_REQUEST, ""), RpcCode.INVALID_ARGUMENT),
        (Invalid(Refusal.NOT_FOUND, ""), RpcCode.NOT_FOUND),
        (Invalid(Refusal.EXPIRED, ""), RpcCode.DEADLINE_EXCEEDED),
        (QueueFull(1), RpcCode.RESOURCE_EXHAUSTED),
        (Invalid(Refusal.DRAINING, ""), RpcCode.UNAVAILABLE),
        (Invalid(Refusal.ENGINE_FAILED, ""), RpcCode.INTERNAL),
        (Invalid("SomethingElse", ""), RpcCode.INTERNAL),
    ],
    ids=["wrong input", "another model", "too late", "too many", "leaving", "the engine", "what is no refusal"],
)
def test_a_refusal_has_the_code_that_clients_act_on(error: Invalid, code: RpcCode) -> None:
    assert code_of(error) is code


def test_a_status_message_cannot_end_its_line() -> None:
    lines = status_lines(RpcCode.INVALID_ARGUMENT, "50 % of 'ü'\r\ngrpc-status: 0")
    assert lines == b"grpc-status: 3\r\ngrpc-message: 50 %25 of '%C3%BC'%0D%0Agrpc-status: 0\r\n"


def test_a_full_queue_says_when_to_come_again() -> None:
    assert b"grpc-retry-pushback-ms: 2000\r\n" in refusal_lines(QueueFull(2))
