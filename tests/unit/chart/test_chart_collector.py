"""The chart's Collector, by a real one: it takes the configuration, becomes ready, and shows the spans that it is sent."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.chart.collector import (
    TO_STANDARD_OUTPUT,
    RunningCollector,
    running,
    validate,
    with_config,
    write_configuration,
)  # fmt: skip
from tests.chart.helm import CHART, Object

from penstock.telemetry import names
from penstock.telemetry.spans import SpanContext, SpanKind, SpanRecord
from penstock_cli.traces.otlp import CollectedSpan, read_lines
from penstock_runtime.spans import SpanSink

TRACE = 0x0AF7651916CD43DD8448EB211C80319C
REQUEST = SpanRecord(
    name=names.SPAN_REQUEST,
    context=SpanContext(TRACE, 0xB7AD6B7169203331, sampled=True),
    parent=SpanContext(TRACE, 0x00F067AA0BA902B7, sampled=True),
    start_ns=1_790_000_000_000_000_000,
    end_ns=1_790_000_000_012_000_000,
    kind=SpanKind.SERVER,
    attributes={names.ATTR_MODEL: "digits", names.ATTR_HTTP_STATUS: 503, names.ATTR_KEPT: "failed"},
    links=(SpanContext(TRACE + 1, 7, sampled=True),),
    error="HTTP 503",
)
DETAILED: Object = {"exporters": {"debug": {"verbosity": "detailed"}}}
FORWARDING: Object = {
    "exporters": {"otlphttp": {"endpoint": "http://tempo.observability:4318"}},
    "service": {"pipelines": {"traces": {"exporters": ["debug", "otlphttp"]}}},
}


@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch) -> Callable[[RunningCollector], None]:
    """Sends one span as a replica does."""

    def sent(collector: RunningCollector) -> None:
        monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.otlp)
        sink = SpanSink.from_env(names.SERVICE_REPLICA, {})
        sink.emit((REQUEST,))
        sink.shutdown(30)

    return sent


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({}, id="as it comes"),
        pytest.param(DETAILED, id="that shows each span"),
        pytest.param(FORWARDING, id="that sends on"),
        pytest.param(TO_STANDARD_OUTPUT, id="that writes what is read back"),
    ],
)
def test_the_collector_takes_a_configuration(config: Object, tmp_path: Path) -> None:
    said = validate(write_configuration(with_config(config), tmp_path))
    assert said.returncode == 0, said.stderr


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param(
            {"exporters": {"debug": {"verbosty": "detailed"}}}, "has invalid keys: verbosty", id="a misspelled field"
        ),
        pytest.param({"exporters": {"debug": {"verbosity": "loud"}}}, "loud", id="a word of no meaning"),
        pytest.param({"exporters": {"debugg": {}}}, 'unknown type: "debugg"', id="a part that there is not"),
        pytest.param(
            {"service": {"pipelines": {"traces": {"exporters": ["file"]}}}},
            'references exporter "file" which is not configured',
            id="a part that is not configured",
        ),
        pytest.param(
            {"processors": {"memory_limiter": {"limit_percentage": None}}}, "memory_limiter", id="a limit left out"
        ),
    ],
)
def test_the_collector_refuses(config: Object, message: str, tmp_path: Path) -> None:
    said = validate(write_configuration(with_config(config), tmp_path))
    assert (said.returncode, message in said.stderr) == (1, True), said.stderr


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param(
            {"receivers": {"otlp": {"protocols": {"http": {"endpoint": ":4319"}}}}},
            "endpoint: :4318, the port otlp-http, is not listened on",
            id="listens at another port than its Service leads to",
        ),
        pytest.param(
            {"extensions": {"health_check": {"endpoint": "localhost:13133"}}},
            "endpoint: :13133, the port health, is not listened on",
            id="tells of its health where no kubelet asks",
        ),
        pytest.param(
            TO_STANDARD_OUTPUT | {"exporters": {"file": {"path": "/nowhere/spans"}}},
            "no such file or directory",
            id="cannot write where it is told to",
        ),
    ],
)
def test_no_collector_is_ready_that(config: Object, message: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=message), running(with_config(config), tmp_path):
        pass


@pytest.mark.parametrize(
    ("config", "shown"),
    [
        pytest.param({}, [r'"otelcol.signal": "traces", "resource spans": 1, "spans": 1'], id="as it comes"),
        pytest.param(
            DETAILED,
            [
                rf"Trace ID +: {TRACE:032x}\n",
                r"Parent ID +: 00f067aa0ba902b7\n",
                r"Name +: request\n",
                r"-> service.name: Str\(penstock-replica\)\n",
                r"-> penstock.model.name: Str\(digits\)\n",
            ],
            id="that shows each span",
        ),
    ],
)
def test_a_span_is_shown_by_a_collector(
    config: Object, shown: list[str], tmp_path: Path, send: Callable[[RunningCollector], None]
) -> None:
    with running(with_config(config), tmp_path) as started:
        send(started)
        started.until(
            f"it shows {shown}", lambda: all(re.search(each, "".join(started.log)) is not None for each in shown)
        )


def test_the_example_in_the_documentation_is_what_is_tested() -> None:
    blocks = re.findall(
        r"^```yaml\n(.*?)^```", (CHART.parents[1] / "docs" / "install.md").read_text(), re.DOTALL | re.MULTILINE
    )
    (example,) = (found["collector"] for each in blocks if "collector" in (found := yaml.safe_load(each)))
    assert (example["enabled"], example["config"]) == (True, TO_STANDARD_OUTPUT)


def test_what_the_collector_writes_is_read_back(tmp_path: Path, send: Callable[[RunningCollector], None]) -> None:
    with running(with_config(TO_STANDARD_OUTPUT), tmp_path) as started:
        send(started)
    assert read_lines(started.output) == [CollectedSpan(names.SERVICE_REPLICA, REQUEST)]
