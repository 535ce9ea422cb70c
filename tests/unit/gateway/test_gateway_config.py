from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.errors import Invalid
from penstock_serving.gateway.haproxy.config import render_config, render_map
from penstock_serving.gateway.haproxy.plan import DesiredState, Server
from penstock_serving.gateway.haproxy.process import find_haproxy
from penstock_serving.gateway.memory import BUFFER_BYTES
from penstock_serving.gateway.settings import SECRET_FILE_VARIABLE, GatewaySettings, read_settings

NOTHING = DesiredState({}, {})
PLAIN = GatewaySettings(secret="s", state_dir=Path("/state"))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (replace(PLAIN, host="10.0.0.1", port=80), "  bind 10.0.0.1:80"),
        (PLAIN, "  stats socket unix@/state/run/haproxy.sock mode 600 level admin expose-fd listeners"),
        (PLAIN, f"  tune.bufsize {BUFFER_BYTES}"),
        (replace(PLAIN, threads=3), "  nbthread 3"),
        (replace(PLAIN, max_body_bytes=7), "  http-request deny deny_status 413 if { req.body_size gt 7 }"),
        (replace(PLAIN, header_timeout_seconds=1.5), "  timeout http-request 1500ms"),
        (replace(PLAIN, default_namespace="prod"), "  http-request set-var(txn.ns) str(prod) if short"),
        (replace(PLAIN, max_connections=9), "  maxconn 9"),
        (replace(PLAIN, keep_alive_seconds=620), "  timeout http-keep-alive 620000ms"),
        (replace(PLAIN, host="::1"), "  bind [::1]:8080 v6only"),
        (replace(PLAIN, host="*", bound=("0.0.0.0", "::")), "  bind 0.0.0.0:8080"),
        (replace(PLAIN, host="*", bound=("0.0.0.0", "::")), "  bind [::]:8080 v6only"),
        (replace(PLAIN, max_connections_per_client=4), "  http-request deny deny_status 429 if { sc_conn_cur(0) gt 4 }"),
        (
            replace(PLAIN, max_requests_per_second_per_client=4),
            "  http-request deny deny_status 429 if { sc_http_req_rate(0) gt 4 }",
        ),
    ],
)  # fmt: skip
def test_a_setting_is_in_the_configuration(settings: GatewaySettings, line: str) -> None:
    assert line in render_config(settings, 1, NOTHING, "e").splitlines()


@pytest.mark.parametrize(
    ("settings", "told", "closed"),
    [
        pytest.param(PLAIN, 1024, 1056, id="a quarter of all where nothing is said"),
        pytest.param(replace(PLAIN, max_connections=64), 16, 48, id="a quarter of few"),
        pytest.param(replace(PLAIN, max_connections_per_client=4), 4, 36, id="as many as is said"),
    ],
)
def test_one_address_leaves_connections_to_the_others(settings: GatewaySettings, told: int, closed: int) -> None:
    lines = render_config(settings, 1, NOTHING, "e").splitlines()
    assert "  tcp-request connection track-sc0 src,ipmask(32,64)" in lines
    assert f"  http-request deny deny_status 429 if {{ sc_conn_cur(0) gt {told} }}" in lines
    assert f"  tcp-request connection reject if {{ sc_conn_cur(0) gt {closed} }}" in lines


def test_a_prefix_is_taken_off_before_anything_looks_at_the_path_and_nowhere_else() -> None:
    lines = render_config(replace(PLAIN, path_prefix="/models"), 1, NOTHING, "e").splitlines()
    taken = lines.index("  http-request set-path %[path,bytes(7)] if { path_beg /models/ } !{ so_name relay }")
    assert taken < min(number for number, line in enumerate(lines) if "path,map_str" in line)
    assert not any("so_name" in line for line in render_config(PLAIN, 1, NOTHING, "e").splitlines())


@pytest.mark.parametrize("prefix", ["models", "/", "/models/", "/a//b", "/v2", "/v2/a", "/a b", "/a%2f", "/a}", "//"])
def test_a_prefix_that_could_not_be_one_is_refused(prefix: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    arguments = [f"--secret-file={tmp_path / 'secret'}", f"--state-dir={tmp_path}", f"--path-prefix={prefix}"]
    with pytest.raises(Invalid, match="must be like /models"):
        read_settings(arguments, {})


def test_nobody_is_counted_by_a_whole_ipv6_address() -> None:
    settings = replace(PLAIN, max_requests_per_second_per_client=9)
    lines = render_config(settings, 1, NOTHING, "e").splitlines()
    counted = [
        line for line in lines if "track-sc" in line or "set-var(txn.who)" in line or "set-var(txn.source)" in line
    ]
    assert [line for line in counted if re.search(r"\bsrc\b(?!,ipmask\(32,64\))", line)] == []


@pytest.mark.parametrize("http2", [False, True], ids=["not where it is turned off", "else"])
def test_http2_in_the_clear_is_spoken(*, http2: bool) -> None:
    lines = render_config(replace(PLAIN, http2=http2), 1, NOTHING, "e").splitlines()
    assert ("  option disable-h2-upgrade" in lines) is not http2


@pytest.mark.parametrize(("namespace", "source"), [(1000, 100), (1, 1)])
def test_of_the_tokens_that_are_verified_for_a_namespace_one_address_gets_a_tenth(namespace: int, source: int) -> None:
    text = render_config(replace(PLAIN, agent_requests_per_second=namespace), 1, NOTHING, "e")
    backend = text.split("\nbackend verify\n")[1].split("\nbackend ")[0]
    limits = [line.split("ge ")[1].split()[0] for line in backend.splitlines() if " deny " in line]
    assert limits == [str(source), str(namespace)]


def test_haproxy_knows_the_platforms_authority_where_replicas_speak_tls_and_only_there() -> None:
    line = "  server authority 127.0.0.1:1 disabled ssl verify required ca-file /state/run/authority.pem"
    assert line in render_config(replace(PLAIN, control_tls_port=1), 1, NOTHING, "e").splitlines()
    assert "ssl" not in render_config(PLAIN, 1, NOTHING, "e")


def test_nothing_else_is_bound() -> None:
    lines = render_config(PLAIN, 2, NOTHING, "e").splitlines()
    assert [line.strip() for line in lines if line.strip().startswith("bind")] == [
        "bind 127.0.0.1:8080",
        "bind unix@/state/run/relay.sock name relay mode 600 accept-proxy",
        "bind unix@/state/run/metrics.sock mode 600",
    ]


def test_servers_known_at_the_start_are_in_their_backends() -> None:
    text = render_config(PLAIN, 2, DesiredState({"m1": {"ra": Server("h:1", 9)}}, {}), "e")
    backend = text.split("\nbackend m1\n")[1].splitlines()
    assert [line for line in backend if "server ra" in line] == [
        (
            "  server ra h:1 weight 9 check inter 5s fastinter 500ms downinter 500ms fall 1 rise 1 "
            "observe layer4 error-limit 1 on-error mark-down"
        )
    ]
    assert "backend m0\n" in text
    assert "backend m2\n" not in text
    assert text.count(" backup\n") == 2


def test_haproxy_takes_the_configuration_without_a_warning(tmp_path: Path) -> None:
    settings = GatewaySettings(
        secret="s", state_dir=tmp_path, max_connections_per_client=9, max_requests_per_second_per_client=9
    )
    layout = settings.layout
    layout.run.mkdir()
    desired = DesiredState(
        {"m1": {"ra": Server("127.0.0.1:1", 9)}}, {"ns/m": "m1|10"}, {"ns/m": "k|0"}, {"ns/AB": "key/a|0|99|*"}
    )
    layout.config.write_text(render_config(settings, 2, desired, "e"))
    layout.map.write_text(render_map(desired.entries))
    layout.locks.write_text(render_map(desired.locks))
    layout.grants.write_text(render_map(desired.grants))
    layout.usual.write_text(render_map(desired.usual))
    command = [str(find_haproxy(settings)), "-c", "-f", str(layout.config)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (checked.returncode, "[WARNING]" in checked.stderr) == (0, False), checked.stderr


def secret(folder: Path, text: str = "abc\n") -> str:
    path = folder / "secret"
    path.write_text(text)
    return str(path)


def test_settings_come_from_flags_and_the_secret_from_a_file(tmp_path: Path) -> None:
    flags = ["--state-dir", "/s", "--port", "1", "--slots", "3"]
    for more, environment in (
        (["--secret-file", secret(tmp_path)], {}),
        ([], {SECRET_FILE_VARIABLE: secret(tmp_path)}),
    ):
        settings = read_settings([*flags, *more], environment)
        assert (settings.secret, settings.port, settings.slots, settings.state_dir) == ("abc", 1, 3, Path("/s"))
        assert "abc" not in repr(settings)
    assert replace(settings, public_url="https://x/").url == "https://x"
    assert settings.url == "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("flags", "text", "environment", "says"),
    [
        ([], None, {}, "--secret-file"),
        ([], None, {SECRET_FILE_VARIABLE: "/nowhere"}, "cannot read"),
        ([], " \n", {}, "empty"),
        (["--slots", "0"], "s", {}, "at least 1"),
        (["--header-timeout-seconds", "0"], "s", {}, "above 0"),
        (["--state-dir", "/" + "x" * 90], "s", {}, "too long"),
        (["--state-dir", "/a b"], "s", {}, "space"),
        (["--require-control-tls"], "s", {}, "--control-tls-port"),
        (["--control-tls-port", "1", "--certificate-seconds", "0"], "s", {}, "above 0"),
    ],
    ids=[
        "a secret is needed",
        "its file must be there",
        "it must not be empty",
        "a gateway needs a slot",
        "a timeout bounds something",
        "sockets need short paths",
        "no space in HAProxy's paths",
        "what is required must be there",
        "a certificate lives for a while",
    ],
)
def test_wrong_settings_are_refused(
    tmp_path: Path, flags: list[str], text: str | None, environment: Mapping[str, str], says: str
) -> None:
    given = [] if text is None else ["--secret-file", secret(tmp_path, text)]
    with pytest.raises(Invalid, match=says):
        read_settings(["--state-dir", "/s", *given, *flags], environment)
