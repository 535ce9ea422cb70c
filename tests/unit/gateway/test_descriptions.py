"""What a gateway keeps of models that sleep, and for how much memory."""

from __future__ import annotations

import pytest
from tests.telling import telling

from penstock.errors import Invalid
from penstock_serving.gateway.holding.descriptions import Descriptions

M = ("ns", "m")


def text(size: int, fill: str = "x") -> str:
    return '{"a":"' + fill * (size - 8) + '"}'


def test_the_last_words_of_each_version_are_kept_until_the_model_is_gone() -> None:
    kept = Descriptions()
    assert kept.find(M, None) is None
    for version, said in (("1", "{}"), ("2", '{"b":2}'), ("1", '{"a":1}')):
        kept.keep(M, version, said)
    assert (kept.find(M, "1"), kept.find(M, "2"), kept.find(M, "3")) == (b'{"a":1}', b'{"b":2}', None)
    assert kept.find(M, None) == b'{"a":1}', "whichever was told last"
    kept.forget(M)
    assert kept.find(M, None) is None
    assert not kept._bytes


def test_of_many_versions_the_last_eight_are_kept() -> None:
    kept = Descriptions()
    for version in range(20):
        kept.keep(M, str(version), "{}")
    assert [version for version in range(20) if kept.find(M, str(version))] == list(range(12, 20))


def test_a_namespace_that_tells_too_much_loses_its_own_first_words() -> None:
    kept = Descriptions(namespace_bytes=1000, total_bytes=2500)
    kept.keep(("quiet", "m"), "1", text(400))
    for model in range(100):
        for namespace in ("loud", "louder", "loudest"):
            kept.keep((namespace, str(model)), "1", text(100))
            assert sum(kept._bytes.values()) <= 2500
            assert max(kept._bytes.values()) <= 1000
    assert kept.find(("quiet", "m"), None) is not None
    assert kept.find(("loudest", "99"), None) is not None
    assert kept.find(("loudest", "0"), None) is None


@pytest.mark.parametrize("said", ["", "[]", "{", "x", "[" * 8000])
def test_what_is_no_json_object_is_refused(said: str) -> None:
    with pytest.raises(Invalid, match=telling("JSON object")):
        Descriptions().keep(M, "1", said)
