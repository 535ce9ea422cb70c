"""Plain scalars of YAML as kubectl reads them, and text that is written so that it reads it as text.

The table of the contract tests holds the same to the real kubectl.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import yaml

from penstock.api.documents import read_yaml, write_yaml
from penstock.api.scalars import scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, True) for text in ("y", "Y", "yes", "on", "True")),
        *((text, False) for text in ("n", "N", "no", "Off", "FALSE")),
        *((text, None) for text in ("", "~", "null", "NULL")),
        ("08", 8), ("010", 8), ("0o10", 8), ("0x1F", 31), ("0b11", 3), ("1_000", 1000), ("+1", 1), ("-0x1", -1), ("1e3", 1000),
        ("12345e6", 12_345_000_000), ("5.", 5), (".5", 0.5), ("1.50", 1.5), ("1e21", 1e21), ("9223372036854775807", 2**63 - 1),
        ("18446744073709551615", 2**64 - 1), ("1e-3", 0.001), ("1E3", 1000), ("2.0", 2),
        *((text, text) for text in (
            "12:30", "1e999", "0x", "0b2", "09a", "1.2.3", "2026-01-31", "-", "+", ".", "e3", "=", "<<", "NaN", "inf", "0o8", "\u0661",
            "1e", "yEs", "--1", "1__0x", "½",
        )),
    ],
)  # fmt: skip
def test_a_plain_scalar(text: str, value: Any) -> None:
    found = scalar(text)
    assert (found, type(found)) == (value, type(value))


def _odd(count: int) -> list[str]:
    chance = random.Random(3)
    letters = "yYnNeE01278.+-_xob:~=<> \t\n'\"#{}[],&*!|%@`ü模"
    return ["".join(chance.choice(letters) for _ in range(chance.randint(0, 6))) for _ in range(count)]


def test_text_is_written_so_that_it_is_read_as_text() -> None:
    for text in ("y", "n", "1e3", "08", "0o14", "12345e6", "null", "2026-01-31", "=", "a: b", *_odd(3000)):
        value = {"a": text, text: ["b", text]}
        assert read_yaml(write_yaml(value)) == value, text


def test_numbers_and_words_are_written_as_they_are() -> None:
    value = {"a": 1, "b": 1.5, "c": True, "d": None, "e": 1e21, "f": [], "g": {}, "h": -0.001}
    assert read_yaml(write_yaml(value)) == value
    assert yaml.safe_load(write_yaml({"a": 1, "b": 1.5, "c": True, "d": None})) == {
        "a": 1,
        "b": 1.5,
        "c": True,
        "d": None,
    }
    assert write_yaml({"name": "digits", "cpu": "2"}) == "name: digits\ncpu: '2'\n"


def test_equal_parts_are_written_twice() -> None:
    part = {"b": "c"}
    assert write_yaml({"x": part, "y": part}) == "x:\n  b: c\n'y':\n  b: c\n"
