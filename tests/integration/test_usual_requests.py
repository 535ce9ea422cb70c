"""What HAProxy decides at once is what its careful rules decide: the same requests to one of each, over all spellings."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.usual_requests import GUARD_SECONDS, MAX_BODY_BYTES, Balancer, Seen, balancers, digest, requests

from penstock_serving.gateway.haproxy.plan import DesiredState
from penstock_serving.gateway.settings import GatewaySettings

_AT_ONCE, _PORTION = 16, 200


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a path that is short enough for sockets."""
    made = Path(tempfile.mkdtemp(prefix="ur-"))
    yield made
    shutil.rmtree(made)


def bodies_bounded(settings: GatewaySettings) -> GatewaySettings:
    return replace(settings, max_body_bytes=MAX_BODY_BYTES)


def batched(sent: list[bytes]) -> Iterator[list[bytes]]:
    """In portions, whatever stands first in each."""
    yield from (sent[start :: len(sent) // _PORTION + 1] for start in range(len(sent) // _PORTION + 1))


async def differences(fast: Balancer, careful: Balancer, sent: list[bytes]) -> list[tuple[bytes, Seen, Seen]]:
    """Requests that fared otherwise, and how; some of them."""
    free = asyncio.Semaphore(_AT_ONCE)

    async def compare(request: bytes) -> tuple[bytes, Seen, Seen]:
        async with free:
            return request, await fast.ask(request), await careful.ask(request)

    for some in batched(sent):
        if found := [each for each in await asyncio.gather(*map(compare, some)) if each[1] != each[2]]:
            return found
    return []


def test_a_request_fares_the_same_whether_it_is_decided_at_once_or_by_the_careful_rules(folder: Path) -> None:
    async def main() -> None:
        async with balancers(folder, bodies_bounded) as (fast, careful):
            sent = requests(1500)
            found = await differences(fast, careful, sent)
            assert found == [], f"{len(found)} of {len(sent)} differ; the first: {found[0]}"
            # Else this compares the careful rules with themselves.
            assert fast.usual(traced=False) > len(sent) / 10
            assert fast.usual(traced=True) > 100
            assert careful.usual(traced=False) == careful.usual(traced=True) == 0
            # What was counted, and what spans are made of.
            async with asyncio.timeout(GUARD_SECONDS):
                while fast.contexts() != careful.contexts():  # noqa: ASYNC110 -- nothing tells but looking
                    await asyncio.sleep(0.1)

    asyncio.run(main())


def _spoil(change: Callable[[dict[str, str]], None]) -> Callable[[DesiredState], DesiredState]:
    def spoiled(wanted: DesiredState) -> DesiredState:
        rows = dict(wanted.usual)
        change(rows)
        return replace(wanted, usual=rows)

    return spoiled


def _open(rows: dict[str, str]) -> None:
    path = "/vision/v2/models/keyed/infer"
    rows[path] = rows[path].replace("k", "o", 1)


def _move(rows: dict[str, str]) -> None:
    rows["/vision/v2/models/open/infer"] = rows["/v2/models/open/infer"]


def _admit(secret: str) -> Callable[[dict[str, str]], None]:
    return lambda rows: rows.update({f"{digest(secret)}@vision": "key/good"})


def _spell(rows: dict[str, str]) -> None:
    rows["/vision/v2/models/open%2finfer"] = rows["/vision/v2/models/open/infer"]


@pytest.mark.parametrize(
    "change", [_open, _move, _admit("ended"), _admit("limited"), _admit("one"), _admit("home"), _spell],
    ids=[
        "a guarded model is called open", "a path leads to another namespace's model", "a key that has ended is called plain",
        "a key with a limit is called plain", "a key of one model is called plain", "a key of another namespace is called plain",
        "another spelling has a row",
    ],
)  # fmt: skip
def test_the_comparison_finds_a_row_that_is_wrong(folder: Path, change: Callable[[dict[str, str]], None]) -> None:
    async def main() -> None:
        async with balancers(folder, bodies_bounded, _spoil(change)) as (fast, careful):
            assert await differences(fast, careful, requests(0))

    asyncio.run(main())


@pytest.mark.parametrize(
    "rule",
    [
        "del-header x-penstock- -m beg", "del-header authorization", "acl has_trace req.hdr_cnt(traceparent) gt 0",
        "acl has_trace req.hdr_cnt(tracestate) gt 0", "one_traceparent traced", "set-header traceparent",
        "!has_trace", f"acl peculiar req.body_size gt {MAX_BODY_BYTES}", "if open_unkept => if open",
        "has_caller keyed_unkept => has_caller", "!has_bearer",
        "set-path /%[var(txn.rest)]",
    ],
)  # fmt: skip
def test_the_comparison_finds_a_rule_that_is_missing(folder: Path, rule: str) -> None:
    rule, _, other = rule.partition(" => ")

    def remove(text: str) -> str:
        start, end = text.index("frontend clients"), text.index("frontend exporter")
        usual, careful = text[start:end].split("  acl outdated", 1)
        if rule in usual:
            kept = [line.replace(rule, other) for line in usual.split("\n") if f"http-request {rule}" not in line]
            return text[:start] + "\n".join(kept) + "  acl outdated" + careful + text[end:]
        return text.replace(f"http-request {rule}", "http-request set-var(txn.nothing) bool(1)")

    async def main() -> None:
        async with balancers(folder, bodies_bounded, rewrite=remove) as (fast, careful):
            assert await differences(fast, careful, requests(0))

    asyncio.run(main())


USUAL = b"POST /v2/models/open/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    ("more", "before"),
    [
        pytest.param(lambda s: replace(s, max_connections_per_client=1), b"", id="of an address with too many connections"),
        pytest.param(
            lambda s: replace(s, max_requests_per_namespace=1), USUAL[:-1], id="of a namespace with too many requests in progress"
        ),
    ],
)  # fmt: skip
def test_what_is_too_much_is_refused_alike(
    folder: Path, more: Callable[[GatewaySettings], GatewaySettings], before: bytes
) -> None:
    async def main() -> None:
        async with balancers(folder, more) as (fast, careful):
            for each in (fast, careful):
                _, writer = await asyncio.open_connection("127.0.0.1", each.port)
                writer.write(before)
                # The other request may come first.
                async with asyncio.timeout(GUARD_SECONDS):
                    while (await each.ask(USUAL)).status != 429:
                        pass
                writer.close()

    asyncio.run(main())


def test_a_client_that_asks_too_often_is_told_so(folder: Path) -> None:
    async def main() -> None:
        async with balancers(folder, lambda s: replace(s, max_requests_per_second_per_client=3)) as (fast, careful):
            for each in (fast, careful):
                seen = [(await each.ask(USUAL)).status for _ in range(20)]
                assert set(seen) == {200, 429}

    asyncio.run(main())
