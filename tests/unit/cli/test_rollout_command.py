"""What `penstock rollout` says, writes and refuses, on a real embedded store; an operator's part is played by what the status says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.telling import assert_tells
from tests.waiting import eventually
from typer.testing import CliRunner, Result

from penstock.api.rollout import RolloutSpec, RolloutStatus
from penstock.api.rollout_commands import ROLLOUT_ANNOTATION, RolloutVerb
from penstock.names import DEPLOYMENT_MANAGER
from penstock_cli.main import app
from penstock_cli.rollouts.showing import bar, command_for, describe
from penstock_cli.standalone.state import StateFolder
from penstock_cli.target import open_embedded
from penstock_operator.kinds import INFERENCE_DEPLOYMENT
from penstock_operator.runtime.cluster import Cluster, Key

SAMPLE = Path(__file__).resolve().parents[3] / "manifests" / "samples" / "judged.yaml"
KEY = Key("default", "judged")
NOW = datetime(2026, 11, 30, 20, 0, tzinfo=UTC)
Cli = Callable[..., Result]

STEPPING: dict[str, Any] = {
    "type": "Canary",
    "phase": "Stepping",
    "candidate": "v2",
    "stable": "v1",
    "step": 1,
    "weight": 10,
    "startedAt": "2026-11-30T19:55:00Z",
    "phaseAt": "2026-11-30T19:59:15Z",
    "deadline": "2026-11-30T20:55:00Z",
    "message": "It gets 10 % of the requests; not proved yet: latency.",
    "harm": "0.6",
    "harmBound": "3",
    "proofBound": "1.3",
    "metrics": [
        {"name": "errors", "candidate": "0.1 %", "baseline": "0.1 %", "samples": 12345, "harm": "-0.2", "proof": "2.1", "proved": True},
        {"name": "latency", "candidate": "1.8 %", "baseline": "1.0 %", "samples": 12330, "harm": "1.5", "proof": "0.65"},
    ],
    "worst": [{"at": "2026-11-30T19:58:00Z", "loss": "0.31", "output": "logits", "told": "3 of 10 rows differ."}],
    "evidence": "opaque",
    "history": [{"after": 0, "phase": "Starting"}],
}  # fmt: skip


def rollout(**changes: Any) -> dict[str, Any]:
    return {**STEPPING, **changes}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A store with the sample in it, which the command line asks, too."""
    monkeypatch.setenv("PENSTOCK_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with_store = open_embedded(StateFolder(tmp_path))
    with_store.apply(INFERENCE_DEPLOYMENT, yaml.safe_load(SAMPLE.read_text()), "penstock-cli")
    yield with_store
    with_store.close()


def cli(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["rollout", *arguments])


def report(
    store: Cluster,
    told: dict[str, Any] | None,
    *,
    generation: int | None = None,
    progressing: tuple[str, str] | None = None,
) -> None:
    """What an operator would write; `progressing` is status and reason of that condition."""
    manifest = store.get(INFERENCE_DEPLOYMENT, KEY)
    assert manifest is not None
    seen = manifest["metadata"]["generation"] if generation is None else generation
    status: dict[str, Any] = {"observedGeneration": seen, "activeRevision": "v1", **({"rollout": told} if told else {})}
    if progressing is not None:
        said, reason = progressing
        condition = {
            "type": "Progressing",
            "status": said,
            "reason": reason,
            "message": "No such file.",
            "lastTransitionTime": "2026-11-30T19:55:00Z",
        }
        status["conditions"] = [condition]
    store.apply_status(INFERENCE_DEPLOYMENT, {"metadata": manifest["metadata"], "status": status}, DEPLOYMENT_MANAGER)


def annotation(store: Cluster) -> str | None:
    manifest = store.get(INFERENCE_DEPLOYMENT, KEY)
    assert manifest is not None
    return (manifest["metadata"].get("annotations") or {}).get(ROLLOUT_ANNOTATION)


@pytest.mark.parametrize(
    ("value", "bound", "drawn"),
    [
        (0.0, 3.0, "··········"),
        (-4.0, 3.0, "··········"),
        (1.5, 3.0, "█████·····"),
        (0.65, 1.3, "█████·····"),
        (3.0, 3.0, "██████████"),
        (30.0, 3.0, "██████████"),
        (0.1, 3.0, "▍·········"),
        (1.0, 0.0, "··········"),
    ],
)
def test_a_bar_is_full_where_the_evidence_is_enough(value: float, bound: float, drawn: str) -> None:
    assert bar(value, bound) == drawn


def test_a_status_tells_where_it_is_by_when_and_each_metric_against_its_bounds() -> None:
    lines = describe("judged", RolloutSpec(steps=(1, 10, 50)), RolloutStatus.model_validate(STEPPING), NOW)

    assert lines == [
        "judged: revision v2 is judged against v1 (Canary)",
        "Stepping for 45 s: 10 % of the requests, step 2 of 3",
        "It gets 10 % of the requests; not proved yet: latency.",
        "It is to be proved to be no worse by 2026-11-30T20:55:00Z, in 55 min.",
        "",
        "METRIC    NEW     PRESENT   SAMPLES   WORSE (of 3)      NO WORSE (of 1.3)",
        "errors    0.1 %   0.1 %     12,345    ·········· -0.2   ██████████ 2.1 proved",
        "latency   1.8 %   1.0 %     12,330    █████····· 1.5    █████····· 0.7",
        "all                                   ██········ 0.6",
        "",
        "Answers that differed most:",
        "  2026-11-30T19:58:00Z  logits: loss 0.31, 0 of the present revision's own. 3 of 10 rows differ.",
        "",
        "It can be told to promote, pause or abort.",
    ]


@pytest.mark.parametrize(
    ("told", "facts"),
    [
        (rollout(phase="Promoted", weight=100), "v2 taken over from v1"),
        (rollout(phase="RolledBack", weight=0, message="errors are worse"), "v2 rolled back v1 serves errors are worse retry"),
        (rollout(phase="Watching", weight=100), "v2 taken over watched promote undo"),
        (rollout(phase="Held", deadline="2026-11-30T19:00:00Z"), "was to be proved 60 min ago resume"),
        (rollout(phase="Shadowing", weight=0, shown="4 answers were compared, 3 of them to inputs that no client sent"), "0 % 4 answers 3 of them no client sent"),
        (rollout(metrics=[{"name": "errors", "proved": True, "provedBy": "ShownRequests"}]), "errors proved by what both were shown"),
        (rollout(metrics=[{"name": "parity", "proved": True, "provedBy": "MadeInputs"}]), "parity proved by made inputs"),
        (rollout(phase="Starting", weight=0, metrics=[], worst=[], deadline=""), "Starting judged against v1"),
        (rollout(phaseAt="", deadline="soon"), "Stepping: 10 %"),
    ],
)  # fmt: skip
def test_each_phase_is_told_with_what_can_be_done(told: dict[str, Any], facts: str) -> None:
    assert_tells("\n".join(describe("judged", RolloutSpec(), RolloutStatus.model_validate(told), NOW)), facts)


def test_without_a_rollout_it_is_said_what_serves_and_nothing_can_be_told(store: Cluster) -> None:
    report(store, None)

    assert_tells(cli("status", "judged").output, "judged no new revision v1 serves")
    assert cli("status", "judged", "-w").exit_code == 0
    refused = cli("promote", "judged")
    assert refused.exit_code == 2
    assert_tells(refused.stderr, "error judged nothing to promote")
    back = cli("undo", "judged")
    assert back.exit_code == 2
    assert_tells(
        back.stderr, "took over at once the former one is gone apply the former spec again BlueGreen keepSeconds"
    )


@pytest.mark.parametrize(
    ("progressing", "code"),
    [
        (("True", "RolledOut"), 0),
        (("True", "RollingOut"), 3),
        (("True", "StartingReplicas"), 3),
        (("False", "ModelNotFound"), 3),
    ],
    ids=["nothing is rolled out", "one takes over unjudged", "one starts", "one does not start"],
)
def test_without_a_rollout_following_ends_once_nothing_is_under_way(
    store: Cluster, progressing: tuple[str, str], code: int
) -> None:
    report(store, None, progressing=progressing)

    assert cli("status", "judged", "-w", "--timeout", "0").exit_code == code


@pytest.mark.parametrize("arguments", [(), ("-w", "--timeout", "0")])
def test_a_revision_that_does_not_start_is_told_with_the_reason(store: Cluster, arguments: tuple[str, ...]) -> None:
    report(store, rollout(phase="Starting", weight=0, message="0 of 1 answer."), progressing=("False", "ModelNotFound"))

    assert_tells(cli("status", "judged", *arguments).output, "0 of 1 answer ModelNotFound No such file")


def test_what_is_said_of_a_former_spec_is_not_taken_for_the_present_one(store: Cluster) -> None:
    report(store, STEPPING, generation=0)

    assert_tells(cli("status", "judged").output, "operator not looked at present spec")
    assert json.loads(cli("status", "judged", "-o", "json").stdout)["rollout"] is None
    assert cli("promote", "judged").exit_code == 2
    assert annotation(store) is None


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_for_programs_there_is_all_but_what_the_operator_keeps_for_itself(store: Cluster, output: str) -> None:
    report(store, STEPPING)

    shown = yaml.safe_load(cli("status", "judged", "-o", output).stdout)

    assert (shown["name"], shown["namespace"]) == ("judged", "default")
    assert shown["rollout"]["metrics"][1]["proof"] == "0.65"
    assert not {"evidence", "history", "notes"} & set(shown["rollout"])


@pytest.mark.parametrize(
    ("verb", "told", "facts"),
    [
        ("promote", STEPPING, "v2 all requests now though not proved latency"),
        ("promote", rollout(phase="Watching", weight=100), "v2 watched no longer v1 goes"),
        ("promote", rollout(phase="Starting", metrics=[]), "v2 all requests nothing was compared"),
        ("pause", STEPPING, "v2 no further than 10 %"),
        ("resume", rollout(phase="Held"), "v2 goes on from 10 %"),
        ("abort", STEPPING, "v2 gets no request v1 all not tried again"),
        ("undo", rollout(phase="Watching", weight=100), "v1 gets all requests again v2 none"),
        ("retry", rollout(phase="RolledBack", weight=0), "v2 judged against v1 anew"),
    ],
)
def test_a_command_names_the_revision_and_says_what_follows(
    store: Cluster, verb: str, told: dict[str, Any], facts: str
) -> None:
    report(store, told)

    done = cli(verb, "judged")

    assert done.exit_code == 0, done.output
    assert_tells(done.output, facts)
    assert annotation(store) == f"{verb} v2"


@pytest.mark.parametrize(
    ("verb", "told", "facts"),
    [
        ("resume", STEPPING, "resume no sense v2 nothing holds promote pause abort"),
        ("undo", STEPPING, "undo no sense v2 not taken over abort"),
        ("abort", rollout(phase="Watching", weight=100), "abort no sense v2 taken over undo"),
        ("promote", rollout(phase="RolledBack"), "promote no sense v2 rolled back retry"),
        ("undo", rollout(phase="Promoted"), "v2 for good apply the former spec"),
    ],
)
def test_what_makes_no_sense_is_refused_with_words_and_changes_nothing(
    store: Cluster, verb: str, told: dict[str, Any], facts: str
) -> None:
    report(store, told)

    refused = cli(verb, "judged")

    assert refused.exit_code == 2
    assert_tells(refused.stderr, "error judged", facts)
    assert annotation(store) is None


@pytest.mark.parametrize(
    ("verb", "obeyed", "command"),
    [
        ("retry", "", "retry v2"),
        ("retry", "abort v2", "retry v2"),
        ("retry", "retry v1", "retry v2"),
        ("retry", "retry v2", "retry v2 20261130T200000Z"),
        ("resume", "resume v2 again", "resume v2 20261130T200000Z"),
        ("pause", "pause v2", None),
    ],
    ids=["never told", "told another thing", "of another revision", "told before", "told again", "paused already"],
)
def test_what_was_carried_out_before_is_told_apart_from_it(verb: str, obeyed: str, command: str | None) -> None:
    assert command_for(RolloutVerb(verb), RolloutStatus.model_validate(rollout(obeyed=obeyed)), NOW) == command


def test_a_command_that_is_waited_for_ends_once_it_was_obeyed(store: Cluster) -> None:
    report(store, STEPPING)

    def obey() -> None:
        eventually(lambda: annotation(store) == "pause v2", seconds=20)
        report(store, rollout(phase="Held", message="Paused by a command.", obeyed="pause v2"))

    operator = threading.Thread(target=obey)
    operator.start()
    done = cli("pause", "judged", "--wait")
    operator.join()

    assert done.exit_code == 0
    assert_tells(done.output, "Held Paused by a command")
    assert_tells(cli("pause", "judged").output, "told so already")


def test_a_command_that_nobody_carries_out_is_told_so_when_the_time_is_up(store: Cluster) -> None:
    report(store, STEPPING)

    late = cli("pause", "judged", "--wait", "--timeout", "0")

    assert late.exit_code == 3
    assert_tells(late.stderr, "not carried out within 0 s Stepping")


@pytest.mark.parametrize(
    ("arguments", "end", "code"),
    [
        ((), rollout(phase="Promoted", weight=100), 0),
        ((), rollout(phase="RolledBack", weight=0), 1),
        (("--taken-over",), rollout(phase="Watching", weight=100), 0),
        (("-o", "json"), rollout(phase="Promoted", weight=100), 0),
    ],
)
def test_a_rollout_is_followed_to_its_end_with_a_line_for_each_change(
    store: Cluster, arguments: tuple[str, ...], end: dict[str, Any], code: int
) -> None:
    report(store, STEPPING)
    followed: list[Result] = []
    follower = threading.Thread(target=lambda: followed.append(cli("status", "judged", "-w", *arguments)))
    follower.start()
    follower.join(timeout=0.7)  # a look or two at what does not change
    report(store, end)
    follower.join()

    lines = followed[0].stdout.splitlines()
    assert followed[0].exit_code == code
    assert len(lines) <= 2
    assert_tells(lines[-1], "v2", end["phase"])


def test_following_ends_when_the_time_is_up(store: Cluster) -> None:
    report(store, STEPPING)

    late = cli("status", "judged", "-w", "--timeout", "0")

    assert late.exit_code == 3
    assert_tells(late.stderr, "0 s over goes on")


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("arguments", [("status",), ("promote",), ("status", "-w")])
def test_a_deployment_that_is_not_there_is_named(arguments: tuple[str, ...]) -> None:
    missing = cli(arguments[0], "nobody", *arguments[1:])
    assert missing.exit_code == 1
    assert_tells(str(missing.exception), "nobody not found default")
