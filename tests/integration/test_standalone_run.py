"""`penstock run`: the whole platform on this machine, from one command to a report, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.ports import free_ports

from penstock.api.optimization import OptimizationRun
from penstock.serving.manifest import MANIFEST_NAME, ModelManifest
from penstock_cli.run import farewell
from penstock_cli.standalone.http import get
from penstock_cli.standalone.ray_head import RayHead
from penstock_cli.standalone.state import StateFolder, default_cache_folder
from penstock_cli.target import open_embedded
from penstock_cli.traces.otlp import read_lines
from penstock_operator.kinds import INFERENCE_DEPLOYMENT, OPTIMIZATION_RUN
from penstock_operator.runtime.cluster import Key
from penstock_optimizer.artifact import digits_artifact
from penstock_runtime.signing import verify

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

RUN_SECONDS = 400.0
MARK = "PENSTOCK_TEST_RUN"


@dataclass(frozen=True)
class Home:
    """Folders of one test, and the mark that every process of it inherits."""

    root: Path

    @property
    def state(self) -> Path:
        return self.root / "state"

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "OTEL_"))}
        return kept | {"XDG_CACHE_HOME": str(cache(self.root)), MARK: str(self.root), "COLUMNS": "110"}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        (port,) = free_ports(1)
        ray = [] if "--ray" in arguments else ["--ray", "new"]
        argv = ["run", *ray, "--port", str(port), "--state-dir", str(self.state), *arguments]
        return subprocess.Popen(
            [sys.executable, "-m", "penstock_cli.main", *argv],
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def left(self) -> list[str]:
        """Command lines of processes that carry the mark."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                if f"{MARK}={self.root}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except (FileNotFoundError, PermissionError, ProcessLookupError):
                continue
        return found


def cache(root: Path) -> Path:
    """One for all tests of this file."""
    return root.parent / "standalone-cache"


@pytest.fixture(autouse=True, scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The model is trained where what trains it has changed, and kept in the user's cache: it takes a core 14 s."""
    kept = digits_artifact(default_cache_folder())
    own = digits_artifact(cache(tmp_path_factory.getbasetemp() / "any") / "penstock")
    if kept.exists():
        shutil.copytree(kept.root, own.root)
    yield
    if own.exists() and not kept.exists():
        kept.root.parent.mkdir(parents=True, exist_ok=True)
        # Another session may have kept its own meanwhile.
        with tempfile.TemporaryDirectory(dir=kept.root.parent) as made, suppress(OSError):
            shutil.copytree(own.root, Path(made) / "digits").rename(kept.root)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    deadline = time.monotonic() + 60
    while home.left() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert home.left() == []


def finish(process: subprocess.Popen[str]) -> str:
    try:
        return process.communicate(timeout=RUN_SECONDS)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"still running after {RUN_SECONDS} s: {process.communicate()[0]}")


def read_until(process: subprocess.Popen[str], part: str, home: Home) -> list[str]:
    """The lines of a run's output up to the first with this part."""
    assert process.stdout is not None
    output: list[str] = []
    for line in process.stdout:
        output.append(line)
        if part in line:
            return output
    pytest.fail("".join(output) + logs(home))


def logs(home: Home) -> str:
    return "\n".join(f"== {p.name}\n{p.read_text(errors='replace')[-3000:]}" for p in home.state.glob("logs/*.log"))


def test_it_reports_serves_until_ctrl_c_and_leaves_nothing_and_its_state_is_used_anew(home: Home) -> None:
    process = home.start()
    lines = read_until(process, "curl -s", home)
    _reports("".join(lines))
    _shows_a_trace("".join(lines))
    _answers_as_it_says(lines[-1])
    _is_found_by_other_commands(home)
    _tells_what_answers_cost(home)
    second = home.start()
    assert "--state-dir" in finish(second)
    assert second.returncode == 1
    process.send_signal(signal.SIGINT)
    rest = finish(process)
    assert process.returncode == 0, "".join(lines) + rest + logs(home)
    assert rest.splitlines()[-1] == farewell(None)
    assert home.left() == []
    _left_files(home)
    _judged_a_model_and_signed_what_it_made(home)
    _ends_by_itself_on_a_ray_that_stays(home)


def _reports(output: str) -> None:
    for part in ("default/digits is Ready", "0 failed", "0 answers differ", "p99", "requests/s", "mean batch", "✓ ("):
        assert part in output
    assert ("The same requests through the gateway" in output) or ("serves on as it is" in output)
    assert "report.html" in output


def _shows_a_trace(output: str) -> None:
    """Which takes a Ray of its own: replicas of another's send their spans where that one was told."""
    waterfall = [line.split()[0:2] for line in output.splitlines() if "ms" in line and "+" in line]
    names = {word for words in waterfall for word in words}
    assert {"gateway", "request", "queue", "execute", "batch"} <= names


def _answers_as_it_says(line: str) -> None:
    """Send the request that a run tells its user to send."""
    _, _, url, _, body = line.split()
    request = urllib.request.Request(url, Path(body.removeprefix("@")).read_bytes())
    with urllib.request.urlopen(request, timeout=30) as response:
        assert json.loads(response.read())["outputs"][0]["shape"] == [1, 10]


def _is_found_by_other_commands(home: Home) -> None:
    command = [sys.executable, "-m", "penstock_cli.main", "get", "infdep", "--state-dir", str(home.state)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert listed.splitlines()[1].split()[:2] == ["digits", "True"]


def _tells_what_answers_cost(home: Home) -> None:
    command = [sys.executable, "-m", "penstock_cli.main", "cost", "--json", "--state-dir", str(home.state)]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)
    assert {(each["namespace"], each["model"]) for each in told["lines"]} == {("default", "digits")}
    assert all(each["counts"]["cpuSeconds"] > 0 for each in told["lines"])
    assert set(told["platform"]["cpuSeconds"]) == {"gateway", "operator"}


def _left_files(home: Home) -> None:
    for secret in ("ray-token", "signing-key.pem"):
        assert (home.state / secret).stat().st_mode & 0o777 == 0o600
    with (home.state / "traces.jsonl").open(encoding="utf-8") as lines:
        spans = read_lines(lines)
    assert {span.service for span in spans} == {"penstock-gateway", "penstock-replica", "penstock-operator"}
    starts = [each.span.context.trace_id for each in spans if each.span.name == "start"]
    told = {each.span.name for each in spans if each.span.context.trace_id == starts[0]}
    parts = {"start", "validate", "resolve", "schedule", "pull", "load", "warm-up", "register", "first-answer"}
    assert parts <= told


def _judged_a_model_and_signed_what_it_made(home: Home) -> None:
    with closing(open_embedded(StateFolder(home.state))) as cluster:
        found = cluster.get(INFERENCE_DEPLOYMENT, Key("default", "digits"))
        (manifest,) = cluster.list(OPTIMIZATION_RUN, "default").items
    assert found is not None
    run = OptimizationRun.model_validate(manifest).status
    assert (Path(str(run.report_uri).removeprefix("file://")) / "report.html").is_file()
    assert (run.verdict == "Accepted") == (run.artifact is not None), run.summary
    if run.artifact is None:
        # How much faster a model becomes is the machine's to say; the test in a cluster has one that always does.
        return
    assert found["status"]["digest"] == run.artifact.digest
    folder = Path(run.artifact.storage_uri.removeprefix("file://"))
    verify(folder, [StateFolder(home.state).public_key_file.read_text()])
    made = ModelManifest.model_validate_json((folder / MANIFEST_NAME).read_bytes())
    assert made.optimization is not None


def _ends_by_itself_on_a_ray_that_stays(home: Home) -> None:
    """A second run, with the first one's state and its model as a user's own file, on a Ray that is up: it ends once the model
    serves, and leaves Ray as it was. Its gateway, replica and operator speak TLS to each other."""
    with closing(open_embedded(StateFolder(home.state))) as cluster:
        found = cluster.get(INFERENCE_DEPLOYMENT, Key("default", "digits"))
    assert found is not None
    model = {"metadata": {"name": "digits"}, "spec": {"model": found["spec"]["model"]}}
    file = home.root / "digits.json"
    file.write_text(json.dumps({name: found[name] for name in ("apiVersion", "kind")} | model))
    state = StateFolder(home.root / "ray")
    state.create()
    head = RayHead(state, home.environment())
    try:
        head.wait_ready()
        token = ("--ray-token-file", str(state.ray_token_file))
        process = home.start("--once", "--replica-tls", "--ray", head.access.url, *token, str(file))
        output = finish(process)
        assert process.returncode == 0, output + logs(home)
        assert "default/digits is Ready" in output
        status, body = get(f"{head.access.url}/api/serve/applications/", head.access.token)
        assert (status, json.loads(body)["applications"]) == (200, {})
    finally:
        head.child.stop()


def test_nothing_is_left_of_one_that_is_killed(home: Home) -> None:
    trained = digits_artifact(cache(home.root) / "penstock").exists()
    process = home.start()
    output = "".join(read_until(process, "is Ready", home))
    assert ("was trained before" in output) == trained
    assert len(home.left()) > 5
    process.kill()
    process.communicate(timeout=RUN_SECONDS)
    # The fixture waits until nothing is left.
