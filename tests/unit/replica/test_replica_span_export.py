"""Which exporter the standard OTEL_* variables choose."""

from __future__ import annotations

import pytest

from penstock.telemetry.spans import SpanContext, SpanRecord
from penstock_runtime.spans import SpanSink, _exporter_kind

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("environment", "kind"),
    [
        ({}, "none"),
        (ENDPOINT, "otlp"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, "otlp"),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, "none"),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": ""}, "otlp"),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "True"}, "none"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "console"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "none"),
    ],
    ids=[
        "nothing set",
        "an endpoint",
        "an endpoint for traces",
        "no exporter",
        "an empty exporter",
        "the SDK disabled",
        "the console",
        "an exporter that is not supported",
    ],
)
def test_the_exporter_follows_the_standard_variables(environment: dict[str, str], kind: str) -> None:
    assert _exporter_kind(environment) == kind


def test_without_an_exporter_spans_are_taken_and_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    sink = SpanSink.from_env("service", {})
    sink.emit([SpanRecord("a", SpanContext(1, 2, sampled=True), None, 1, 2)])
    sink.shutdown(1.0)
    assert not sink.enabled
