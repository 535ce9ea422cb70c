"""What Argo CD is told of the health of Penstock's kinds: the shipped Lua, run by the interpreter that HAProxy has in it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.api.conditions import REASONS
from penstock_serving.gateway.haproxy.process import find_haproxy
from penstock_serving.gateway.settings import GatewaySettings

ROOT = Path(__file__).parents[3]
CHECKS: dict[str, str] = yaml.safe_load((ROOT / "manifests/argocd/health-checks.yaml").read_text())["data"]
PREFIX = "resource.customizations.health.penstock.dev_"


def _lua(value: object) -> str:
    """A literal of Lua."""
    match value:
        case dict():
            return "{" + ", ".join(f"[{_lua(key)}] = {_lua(each)}" for key, each in value.items()) + "}"
        case list():
            return "{" + ", ".join(_lua(each) for each in value) + "}"
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case _:
            return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _healths(folder: Path, *objects: dict[str, Any]) -> list[str]:
    """What each object's kind's check says of it, in one run of the interpreter."""
    lines = []
    for each in objects:
        lines += [f"local health = (function(obj)\n{CHECKS[PREFIX + each['kind']]}\nend)({_lua(each)})"]
        lines += ['print("health: " .. health.status .. " " .. health.message)']
    script = folder / "health.lua"
    script.write_text("\n".join(lines))
    config = folder / "haproxy.cfg"
    config.write_text(f"global\n  lua-load {script}\n")
    haproxy = find_haproxy(GatewaySettings(secret="s", state_dir=folder))
    done = subprocess.run(
        [str(haproxy), "-c", "-f", str(config)], capture_output=True, text=True, timeout=60, check=False
    )
    assert "[ALERT]" not in done.stderr, done.stderr
    return [line.removeprefix("health: ") for line in done.stdout.splitlines() if line.startswith("health: ")]


def _object(kind: str = "InferenceDeployment", observed: int | None = 2, **condition: str) -> dict[str, Any]:
    status: dict[str, Any] = {} if observed is None else {"observedGeneration": observed}
    if condition:
        other = {"type": "Progressing", "status": "False", "reason": "InvalidSpec", "message": "another"}
        status["conditions"] = [other, {"message": "as it says", **condition}]
    return {"kind": kind, "metadata": {"generation": 2}, "spec": {}, "status": status}


SEEN = [
    (_object(type="Ready", status="True", reason="Ready"), "Healthy as it says"),
    (_object(type="Ready", status="False", reason="StartingPool"), "Progressing as it says"),
    (_object(type="Ready", status="Unknown", reason="Pending"), "Progressing as it says"),
    (_object(type="Ready", status="False", reason="ModelNotFound"), "Degraded as it says"),
    (_object(observed=1, type="Ready", status="True", reason="Ready"), "Progressing the operator has not looked at this spec yet"),
    (_object(observed=None), "Progressing the operator has not looked at this spec yet"),
    (_object(), "Progressing there is no condition Ready yet"),
    (_object("ServingPool") | {"spec": {"suspend": True}}, "Suspended spec.suspend"),
    (_object("OptimizationRun", type="Complete", status="True", reason="Rejected"), "Healthy as it says"),
    (_object("OptimizationRun", type="Complete", status="False", reason="InvalidSpec"), "Degraded as it says"),
    (_object("APIKey", type="Ready", status="False", reason="KeyExpired"), "Degraded as it says"),
    (_object("TenantQuota", type="Ready", status="True", reason="Ready"), "Healthy as it says"),
]  # fmt: skip


def test_argo_cd_sees_an_objects_health(tmp_path: Path) -> None:
    assert _healths(tmp_path, *(each for each, _ in SEEN)) == [told for _, told in SEEN]


def test_what_lasts_is_degraded_and_what_may_pass_is_not(tmp_path: Path) -> None:
    told = _healths(tmp_path, *(_object(type="Ready", status="False", reason=str(reason)) for reason in REASONS))
    degraded = {str(reason) for reason, health in zip(REASONS, told, strict=True) if health.startswith("Degraded")}
    assert degraded == {str(reason) for reason, facts in REASONS.items() if facts.lasts}


def test_every_kind_that_says_how_it_stands_has_a_check() -> None:
    kinds = set()
    for path in (ROOT / "manifests/crds").glob("*.yaml"):
        crd = yaml.load(path.read_text(), yaml.CSafeLoader)
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
        if "conditions" in schema.get("status", {}).get("properties", {}):
            kinds.add(crd["spec"]["names"]["kind"])
    assert {each.removeprefix(PREFIX) for each in CHECKS} == kinds


@pytest.mark.parametrize("lua", ["return nil", "retrun 1"])
def test_a_check_that_is_no_check_would_be_seen(tmp_path: Path, lua: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHECKS, f"{PREFIX}APIKey", lua)
    with pytest.raises(AssertionError, match="ALERT"):
        _healths(tmp_path, _object("APIKey"))
