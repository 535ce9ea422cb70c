from __future__ import annotations

import pytest

from penstock_serving.gateway.haproxy.scraping import filter_metrics

OURS = b'penstock_requests_total{code="200",namespace="ns",model="m"} 3.0'


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        pytest.param(OURS, True, id="a series of its own"),
        pytest.param(b"process_cpu_seconds_total 1.5", True, id="one without labels"),
        pytest.param(b"# HELP penstock_requests_total Requests.", True, id="a comment"),
        pytest.param(b'penstock_requests_total{namespace="other",model="m"} 3.0', False, id="another's namespace"),
        pytest.param(b'penstock_requests_total{a="b", model = "other"} 3.0', False, id="another's model, with spaces"),
        pytest.param(b'penstock_requests_total{a="\\"}",namespace="other"} 3.0', False, id="behind a quote"),
        pytest.param(b'penstock_requests_total{namespace="ns",namespace="other"} 3.0', False, id="said twice"),
        pytest.param(b'penstock_requests_total{"namespace"="other"} 3.0', False, id="with the label's name in quotes"),
        pytest.param(b'up{job="penstock-operator"} 0', False, id="a name that is none of ours"),
        pytest.param(b'haproxy_frontend_current_sessions{proxy="clients"} 1', False, id="the gateway's"),
    ],
)
def test_of_a_replicas_metrics_is_passed_on(line: bytes, *, kept: bool) -> None:
    assert (line in filter_metrics(line + b"\n", "ns", "m").split(b"\n")) is kept


def test_a_replica_has_only_so_many_series() -> None:
    flood = b"\n".join(b'penstock_x{i="%d"} 1' % each for each in range(20_000))
    assert filter_metrics(flood, "ns", "m").count(b"\n") == 5000
    assert filter_metrics(b"#\n" * 50_000, "ns", "m").count(b"\n") == 10_000
