from __future__ import annotations

import gzip
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.telling import telling

from penstock.errors import Invalid
from penstock.protocol.refusals import Refusal, status_of
from penstock_serving.replica.front.codings import choose_coding, compress, decompress, knows_coding

MIB = 1 << 20
TEXT = b'{"inputs": []}' * 20


@given(st.binary(max_size=3000), st.sampled_from([b"gzip", b"deflate"]))
def test_what_was_compressed_comes_back(content: bytes, coding: bytes) -> None:
    made = compress(content, coding)
    assert made is content or (len(made) < len(content) and decompress(made, coding, len(content)) == content)


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        pytest.param(gzip.compress(TEXT, mtime=0), b"gzip", id="a gzip file"),
        pytest.param(gzip.compress(TEXT, mtime=0), b"x-gzip", id="a gzip file, under its old name"),
        pytest.param(
            gzip.compress(TEXT[:50], mtime=0) + gzip.compress(TEXT[50:], mtime=0), b"gzip", id="two gzip files joined"
        ),
        pytest.param(zlib.compress(TEXT), b"deflate", id="zlib's format"),
        pytest.param(bytearray(zlib.compress(TEXT)), b"deflate", id="a body that came in parts"),
    ],
)
def test_a_body_is_read(body: bytes | bytearray, coding: bytes) -> None:
    assert knows_coding(coding)
    assert decompress(body, coding, len(TEXT)) == TEXT


@pytest.mark.parametrize(
    ("body", "coding", "facts"),
    [
        (b"", b"gzip", "ends gzip"),
        (gzip.compress(TEXT, mtime=0)[:-1], b"gzip", "ends gzip"),
        (gzip.compress(TEXT, mtime=0)[:10], b"gzip", "ends gzip"),
        (zlib.compress(TEXT)[:-1], b"deflate", "ends deflate"),
        (gzip.compress(TEXT, mtime=0) + b"more", b"gzip", "not gzip"),
        (gzip.compress(b"", mtime=0) * 17, b"gzip", "gzip end"),
        (zlib.compress(TEXT) * 2, b"deflate", "deflate end"),
        (TEXT, b"gzip", "not gzip"),
        (TEXT, b"deflate", "not deflate"),
        (zlib.compress(TEXT), b"gzip", "not gzip"),
        (gzip.compress(TEXT, mtime=0), b"deflate", "not deflate"),
        (gzip.compress(TEXT, mtime=0)[:-8] + bytes(8), b"gzip", "not gzip"),
    ],
)
def test_a_body_that_is_not_what_it_says_gets_400(body: bytes, coding: bytes, facts: str) -> None:
    with pytest.raises(Invalid, match=telling(facts)) as refused:
        decompress(body, coding, 10_000)
    assert status_of(refused.value) == 400


@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
def test_the_limit_counts_bytes_as_they_are_after_decompression(coding: bytes) -> None:
    body = compress(bytes(1000), coding)
    assert len(decompress(body, coding, 1000)) == 1000
    with pytest.raises(Invalid) as refused:
        decompress(body, coding, 999)
    assert refused.value.reason == Refusal.LENGTH_TOO_LARGE
    assert status_of(refused.value) == 413


@pytest.mark.parametrize("members", [1, 16])
def test_a_bomb_takes_no_more_memory_than_the_limit(members: int) -> None:
    bomb = compress(bytes(128 * MIB // members), b"gzip") * members
    tracemalloc.start()
    try:
        with pytest.raises(Invalid, match=telling(f"{MIB} bytes decompressed")):
            decompress(bomb, b"gzip", MIB)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # What was sent, a copy of it that zlib has not come to, and the limit, of which a buffer that grows may be twice.
    assert peak < 3 * len(bomb) + 3 * MIB


@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
@pytest.mark.parametrize("length", [1000, 64 << 10, MIB])
def test_an_answer_that_would_hardly_become_shorter_stays_as_it_is(coding: bytes, length: int) -> None:
    noise = np.random.default_rng(0).bytes(length)
    assert compress(noise, coding) is noise
    text = np.random.default_rng(0).bytes(length).hex().encode()
    made = compress(text, coding)
    assert len(made) < 0.7 * len(text)
    assert decompress(made, coding, len(text)) == text


@pytest.mark.parametrize(
    ("accepts", "chosen"),
    [
        (b"gzip", b"gzip"),
        (b"deflate", b"deflate"),
        (b"GZIP", b"gzip"),
        (b"x-gzip", b"gzip"),
        (b"gzip, deflate, br, zstd", b"gzip"),
        (b"deflate, gzip", b"gzip"),
        (b"gzip;q=0.5, deflate;q=0.8", b"deflate"),
        (b"gzip ; q=0.5 , deflate", b"deflate"),
        (b"*", b"gzip"),
        (b"gzip;q=0, *", b"deflate"),
        (b"gzip;q=0.001", b"gzip"),
        (b"identity;q=0.5, gzip", b"gzip"),
        (b"gzip;q=1, identity;q=0", b"gzip"),
        (b"", b""),
        (b"identity", b""),
        (b"br", b""),
        (b"gzip;q=0", b""),
        (b"gzip;q=0.0, deflate;q=0", b""),
        (b"identity, gzip;q=0.5", b""),
        (b"*;q=0", b""),
        (b"gzip;q=much", b""),
        (b"gzip;q=-1", b""),
        (b"gzip;q=2", b""),
        (b"gzip;q=nan", b""),
        (b",;=,q=1;;", b""),
    ],
)
def test_an_answer_is_compressed_as_its_client_says(accepts: bytes, chosen: bytes) -> None:
    assert choose_coding(accepts) == chosen


@given(st.binary(max_size=60))
def test_no_header_makes_the_choice_fail(accepts: bytes) -> None:
    assert choose_coding(accepts) in (b"", b"gzip", b"deflate")


@pytest.mark.parametrize("coding", [b"", b"br", b"zstd", b"gzip, gzip", b"identity"])
def test_other_codings_are_not_known(coding: bytes) -> None:
    assert not knows_coding(coding)
