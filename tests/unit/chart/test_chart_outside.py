"""What the chart gives pods to reach what lies outside the cluster: proxies, and whom to trust."""

from __future__ import annotations

import pytest
from tests.chart.helm import EVERYTHING, HelmFailedError, Object, Rendered, render

PROXY = "http://proxy.example.com:3128"
OUTSIDE: Object = {
    "proxy": {"https": PROXY, "noProxy": ["minio.storage", ".corp.example.com"]},
    "trustedCA": {"configMap": "company", "key": "ca-bundle.crt"},
    "tracing": {"otlpEndpoint": "http://collector.observability:4318"},
}
PAST = (
    "localhost,127.0.0.1,::1,.svc,.cluster.local,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,collector.observability,minio.storage,"
    ".corp.example.com"
)
VARIABLES = {"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "PENSTOCK_TRUSTED_CA"}


def _pod(chart: Rendered, name: str) -> Object:
    pod: Object = chart.one("Deployment", name)["spec"]["template"]["spec"]
    return pod


def _variables(pod: Object) -> dict[str, str]:
    found = pod["containers"][0].get("env", ())
    return {each["name"]: each["value"] for each in found if each["name"] in VARIABLES}


@pytest.mark.parametrize("name", ["penstock-operator", "penstock-gateway"])
def test_the_releases_pods_have_the_proxies_and_the_authorities(name: str) -> None:
    pod = _pod(render(OUTSIDE), name)
    assert _variables(pod) == {
        "HTTPS_PROXY": PROXY, "NO_PROXY": PAST, "PENSTOCK_TRUSTED_CA": "/etc/penstock/trusted/ca.crt",
    }  # fmt: skip
    (volume,) = (each for each in pod["volumes"] if each["name"] == "trusted")
    assert volume["configMap"] == {"name": "company", "items": [{"key": "ca-bundle.crt", "path": "ca.crt"}]}
    (mount,) = (each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "trusted")
    assert mount == {"name": "trusted", "mountPath": "/etc/penstock/trusted", "readOnly": True}


def test_pools_and_jobs_get_the_same_and_what_is_said_of_them_goes_before() -> None:
    said = {"poolEnv": {"NO_PROXY": "*"}, "optimization": EVERYTHING["optimization"]}
    arguments = render(OUTSIDE | said).arguments("penstock-operator")
    assert arguments.count(f"--pool-env=HTTPS_PROXY={PROXY}") == 1
    assert [each for each in arguments if each.startswith("--pool-env=NO_PROXY=")] == [
        f"--pool-env=NO_PROXY={PAST}", "--pool-env=NO_PROXY=*",
    ]  # fmt: skip
    assert {f"--optimizer-env=HTTPS_PROXY={PROXY}", f"--optimizer-env=NO_PROXY={PAST}"} <= set(arguments)
    assert "--trusted-ca=company/ca-bundle.crt" in arguments


def test_where_nothing_is_said_no_pod_has_any_of_it() -> None:
    chart = render()
    for name in ("penstock-operator", "penstock-gateway"):
        pod = _pod(chart, name)
        assert _variables(pod) == {}
        assert "trusted" not in {each["name"] for each in pod["volumes"]}
    assert not [each for each in chart.arguments("penstock-operator") if "PROXY" in each or "trusted" in each]


def test_a_receiver_of_traces_outside_is_asked_through_the_proxy() -> None:
    chart = render({**OUTSIDE, "tracing": {"otlpEndpoint": "https://otlp.example.com"}})
    assert "otlp.example.com" not in _variables(_pod(chart, "penstock-gateway"))["NO_PROXY"]


@pytest.mark.parametrize(
    "value",
    [{"https": "proxy.example.com:3128"}, {"https": "http://user:secret@proxy:3128"}, {"noProxy": ["a,b"]}],
    ids=["a proxy without a scheme", "a proxy with a password, which arguments would show", "two names in one"],
)
def test_it_is_refused(value: Object) -> None:
    with pytest.raises(HelmFailedError, match="proxy"):
        render({"proxy": value})
