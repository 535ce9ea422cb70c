"""Whether what models are told to have used is what the kernel counted: a control group around Ray, gateway and operator.

Two models under different loads. The sum over models of CPU time and overhead, with what gateway and operator tell of themselves, is
held against the group's own count. Then the same with a process in the group that is no part of the platform: that must be told.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from tests.benchmarks import parts, report
from tests.benchmarks.open_loop import infer_at
from tests.cluster.binary import build
from tests.cluster.controlplane import ControlPlane
from tests.e2e.stack import Platform, deployment, platform
from tests.integration.local_ray import local_ray

from penstock.routing.fleet import FEATURES, FEATURES_HEADER
from penstock.routing.tokens import admin_token, word_for
from penstock.telemetry import names
from penstock_cli.cost.sources import parse

BAR: Final = 0.03
_LOAD_SECONDS: Final = 60.0
_CONTROL_SECONDS: Final = 20.0
_REST_SECONDS: Final = 10.0
"""How often replicas look: so long a rest before each reading, and it is as old at the end as at the beginning."""
_RATES: Final = {"busy": 300.0, "quiet": 20.0}
_BURN: Final = "while True: pass"


class ControlGroup:
    """A group of version 1 or 2 whose CPU time the kernel counts."""

    def __init__(self, name: str) -> None:
        root = Path("/sys/fs/cgroup")
        self._one = (root / "cpuacct").is_dir()
        self._parent = root / "cpuacct" if self._one else root
        self._folder = self._parent / name
        self._folder.mkdir()

    def join(self, pid: int = 0) -> None:
        """Take a process in (0: this one); what it starts is in it, too."""
        (self._folder / "cgroup.procs").write_text(str(pid))

    def leave(self) -> None:
        """This process goes back; what it has started stays."""
        (self._parent / "cgroup.procs").write_text("0")

    def seconds(self) -> float:
        """CPU time of all that was ever in it."""
        if self._one:
            return int((self._folder / "cpuacct.usage").read_text()) / 1e9
        found = re.search(r"^usage_usec (\d+)", (self._folder / "cpu.stat").read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1]) / 1e6

    def remove(self) -> None:
        """Once nothing is in it."""
        deadline = time.monotonic() + 20
        while True:
            try:
                self._folder.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return


@dataclass(frozen=True, slots=True)
class Reading:
    """CPU seconds so far."""

    group: float
    told: dict[str, float]
    """By what they are told for."""
    answered: dict[str, float]


def main() -> int:
    """Measure, and publish `cost`. Returns 1 where the sums differ by more than the bar, or the control is not told."""
    with _scene() as (penstock, group):
        for name, widths in (("busy", (64, 1024, 1024, 10)), ("quiet", (64, 256, 10))):
            model = parts.dense_model(penstock.folder / name / "model.onnx", widths)
            penstock.kubectl("apply", "-f", "-", manifest=deployment("default", name, model))
        urls = {name: penstock.until_ready("default", name)["status"]["url"] for name in _RATES}
        rows = [_measure(penstock, group, urls, "two models under load", _LOAD_SECONDS)]
        burning = subprocess.Popen([sys.executable, "-c", _BURN])
        try:
            group.join(burning.pid)
            rows.append(_measure(penstock, group, {}, "control: a process left out", _CONTROL_SECONDS))
        finally:
            burning.kill()
            burning.wait()
    notes = [f"bar: {BAR:.0%}; the control must be beyond it"]
    report.publish("cost", "CPU seconds: the sum over models and the platform against the control group", rows, notes)
    holds = abs(rows[0]["off %"]) <= 100 * BAR
    seen = abs(rows[1]["off %"]) > 100 * BAR
    return 0 if holds and seen else 1


@contextmanager
def _scene() -> Iterator[tuple[Platform, ControlGroup]]:
    environment = {"OTEL_SDK_DISABLED": "true"}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pbench")))
        report.progress("booting the API server")
        api = stack.enter_context(ControlPlane(build(report.progress)))
        group = ControlGroup(f"penstock-{folder.name}")
        stack.callback(group.remove)
        group.join()
        try:
            report.progress("starting Ray, the gateway and the operator in a control group")
            ray = stack.enter_context(local_ray(environment={"PYTHONPATH": str(Path.cwd()), **environment}))
            penstock = stack.enter_context(platform(api, ray, folder, environment))
        finally:
            group.leave()
        penstock.add_tenant("default")
        yield penstock, group


def _measure(
    penstock: Platform, group: ControlGroup, urls: dict[str, str], case: str, seconds: float
) -> dict[str, Any]:
    report.progress(f"{case}: {seconds:g} s")
    time.sleep(1.5 * _REST_SECONDS)
    before = _read(penstock, group)
    began = time.monotonic()
    if urls:
        _load(urls, seconds)
    time.sleep(max(began + seconds - time.monotonic(), 0))
    # A whole number of looks later, so that what replicas tell is as old as it was at the beginning.
    elapsed = time.monotonic() - began
    time.sleep(2 * _REST_SECONDS - elapsed % _REST_SECONDS)
    after = _read(penstock, group)
    told = {name: after.told[name] - before.told.get(name, 0.0) for name in sorted(after.told)}
    used = after.group - before.group
    report.progress(f"{case}: {sum(told.values()):.2f} of {used:.2f} CPU seconds are told")
    return {
        "case": case,
        "group": round(used, 2),
        "sum": round(sum(told.values()), 2),
        "off %": round(100 * (sum(told.values()) / used - 1), 2),
        **{name: round(value, 2) for name, value in told.items()},
        "answers": ", ".join(
            f"{name} {after.answered[name] - before.answered.get(name, 0):.0f}" for name in sorted(after.answered)
        ),
    }


def _load(urls: dict[str, str], seconds: float) -> None:
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 -- with its only user

    def send(name: str) -> None:
        rate = _RATES[name]
        outcome = infer_at(urls[name], parts.request_body(), [each / rate for each in range(int(rate * seconds))])
        if outcome.failed():
            report.progress(f"{name}: {outcome.statuses()}")

    with ThreadPoolExecutor(len(urls)) as pool:
        list(pool.map(send, urls))


def _read(penstock: Platform, group: ControlGroup) -> Reading:
    told: dict[str, float] = {}
    answered: dict[str, float] = {}
    used = group.seconds()
    for route in _routes(penstock):
        key = route["namespace"], route["model"]
        owner = (route["declared"] or {}).get("owner", "")
        for replica in route["replicas"]:
            shown = {"x-penstock-gateway": word_for(penstock.gateway.secret, key, owner)}
            text = httpx.get(f"http://{replica['address']}/metrics", headers=shown).raise_for_status().text
            sums = _sums(text)
            name = route["model"]
            told[name] = told.get(name, 0) + sums[names.METRIC_REPLICA_CPU]
            told[f"{name}'s overhead"] = told.get(f"{name}'s overhead", 0) + sums[names.METRIC_REPLICA_OVERHEAD]
            answered[name] = answered.get(name, 0) + sums[names.METRIC_REPLICA_ANSWERED]
    health = penstock.operators[0].command[-1]
    for component, url in (("gateway", penstock.gateway.control_url), ("operator", f"http://127.0.0.1:{health}")):
        told[component] = _sums(httpx.get(f"{url}/metrics").raise_for_status().text)[names.METRIC_PLATFORM_CPU]
    return Reading(used, told, answered)


def _routes(penstock: Platform) -> list[dict[str, Any]]:
    """With whose each is, which a former release is not told."""
    known = {
        "authorization": f"Bearer {admin_token(penstock.gateway.secret)}",
        FEATURES_HEADER: " ".join(FEATURES),
    }
    found = httpx.get(f"{penstock.gateway.control_url}/v1/routes", headers=known).raise_for_status()
    routes: list[dict[str, Any]] = found.json()["routes"]
    return routes


def _sums(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for each in parse(text, {}):
        found[each.metric] = found.get(each.metric, 0.0) + each.value
    return found


if __name__ == "__main__":
    sys.exit(main())
