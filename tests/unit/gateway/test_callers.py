from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from aiohttp import web

from penstock_serving.gateway.control.callers import RequestRefused, token_of


def _request(header: dict[str, str]) -> web.Request:
    """With a head as aiohttp reads it: bytes that are no UTF-8 are halves of surrogate pairs."""
    return cast(web.Request, SimpleNamespace(headers=header))


@pytest.mark.parametrize(
    ("header", "status"),
    [
        pytest.param({}, 401, id="who shows nothing"),
        pytest.param({"Authorization": "Basic abc"}, 401, id="who shows a password"),
        pytest.param({"Authorization": "Bearer \udcff\udcfe"}, 403, id="who shows bytes that are no text"),
        pytest.param({"Authorization": "Bearer r1/a/\udcff/u/0"}, 403, id="also in the form of a token"),
        pytest.param({"Authorization": "Bearer schlüssel"}, 403, id="who shows letters that no token has"),
    ],
)
def test_by_the_head_alone_is_refused(header: dict[str, str], status: int) -> None:
    with pytest.raises(RequestRefused) as refused:
        token_of(_request(header))
    assert refused.value.status == status


def test_a_token_is_what_follows_the_scheme() -> None:
    assert token_of(_request({"Authorization": "Bearer  abc "})) == "abc"
