from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from penstock_serving.gateway.memory import connection_bytes, limit, max_bytes
from penstock_serving.gateway.settings import GatewaySettings

PLAIN = GatewaySettings(secret="s", state_dir=Path("/state"))


def test_what_a_setting_allows_is_in_the_calculation() -> None:
    most = max_bytes(PLAIN)
    assert max_bytes(replace(PLAIN, max_held_bytes=PLAIN.max_held_bytes + 7)) == most + 7
    without = replace(PLAIN, http2=False)
    assert most == max_bytes(without) + PLAIN.requests_over_http2 * connection_bytes()
    more = replace(without, max_connections=PLAIN.max_connections + 1)
    assert max_bytes(more) == max_bytes(without) + connection_bytes()
    over_tls = {"control_tls_port": 1}
    assert max_bytes(replace(more, **over_tls)) == max_bytes(replace(without, **over_tls)) + connection_bytes(
        replica_tls=True
    )


@pytest.mark.parametrize(("said", "expected"), [("1073741824\n", 1 << 30), ("max\n", None), ("", None)])
def test_a_groups_limit_is_read(said: str, expected: int | None, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(said)
    assert limit(tmp_path / "memory.max") == expected
    assert limit(tmp_path / "none") is None
