"""Authorities that workers and Jobs trust beside those of their images."""

from __future__ import annotations

from tests.unit.pool.pools import CPU, pool

from penstock.api.meta import Manifest
from penstock_operator.command_line import read
from penstock_operator.pods.trust import TrustedAuthorities, with_authorities
from penstock_operator.pool.raycluster import build, managed_spec, replacement_hash
from penstock_operator.pool.raypods import PoolSettings

SETTINGS = PoolSettings(image="runtime:1", trusted=TrustedAuthorities("company", "ca-bundle.crt"))


def test_a_worker_trusts_them_and_starts_where_its_namespace_has_none() -> None:
    spec = build(pool(CPU), SETTINGS, "s", "p")["spec"]
    pod = spec["workerGroupSpecs"][0]["template"]["spec"]
    (volume,) = (each for each in pod["volumes"] if each["name"] == "trusted")
    items = [{"key": "ca-bundle.crt", "path": "ca.crt"}]
    assert volume["configMap"] == {"name": "company", "items": items, "optional": True}
    (container,) = pod["containers"]
    assert {"name": "trusted", "mountPath": "/etc/penstock/trusted", "readOnly": True} in container["volumeMounts"]
    assert {"name": "PENSTOCK_TRUSTED_CA", "value": "/etc/penstock/trusted/ca.crt"} in container["env"]
    assert "trusted" not in {each["name"] for each in spec["headGroupSpec"]["template"]["spec"]["volumes"]}


def test_others_need_other_pods() -> None:
    spec = managed_spec(pool(CPU))
    assert replacement_hash(spec, SETTINGS, "s") != replacement_hash(spec, PoolSettings(image="runtime:1"), "s")


def test_no_other_container_of_a_pod_is_given_them() -> None:
    both: list[Manifest] = [{"name": name, "env": [], "volumeMounts": []} for name in ("optimizer", "logs")]
    made = with_authorities({"containers": both, "volumes": []}, "optimizer", TrustedAuthorities("company"))
    assert [bool(each["env"]) for each in made["containers"]] == [True, False]
    assert with_authorities({"containers": both}, "optimizer", None) == {"containers": both}


def test_the_operator_is_told_of_a_config_map_and_of_its_key() -> None:
    told = {text: read([f"--trusted-ca={text}"]).pools for text in ("company", "company/ca-bundle.crt")}
    assert {text: each and each.trusted for text, each in told.items()} == {
        "company": TrustedAuthorities("company", "ca.crt"),
        "company/ca-bundle.crt": TrustedAuthorities("company", "ca-bundle.crt"),
    }
