"""A real replica shows samples to real others, good and bad ones, and its clients see nothing of it."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.integration.gateway_parts import token_of, until
from tests.integration.replica_process import (
    ReplicaProcess,
    document,
    linear_weights,
    replica,
    save_linear,
    save_model,
)
from tests.integration.test_ordered_outcomes import replica_outcomes
from tests.integration.test_replica_lease import Agent
from tests.integration.test_replica_tls import AUTHORITY, secured
from tests.waiting import eventually

from penstock.routing.fleet import FEATURES, ORDERS
from penstock.routing.leases import LeaseGranted, ReplicaLease
from penstock.routing.outcomes import (
    LOSS_EDGES,
    MadeOutcomes,
    Orders,
    ReplicaOutcomes,
    ShadowOrders,
    ShadowOutcomes,
    ShadowPeer,
)
from penstock.routing.shadowing import SHADOW_HEADER, shadow_words
from penstock.routing.tokens import replica_token, word_for

TOKEN = replica_token("s", "default", "tiny", "u")
GATEWAY = {"X-Penstock-Gateway": word_for("s", ("default", "tiny"), "u")}
ZERO = LOSS_EDGES.index(0.0)
ONE = LOSS_EDGES.index(1.0)
BAD_ROW = 100.0
"""A first number that makes the failing model fail, and that no made input has."""
ROWS = np.random.default_rng(1).normal(size=(60, 2, 64)).astype(np.float32)


class OrderingAgent(Agent):
    """Gives each replica its orders, and keeps what it told last."""

    def __init__(self) -> None:
        super().__init__()
        self.features = " ".join((*FEATURES, ORDERS))
        self.orders: dict[str, ShadowOrders] = {}

    def grant(self, path: str) -> LeaseGranted:
        shadow = self.orders.get(unquote(path.rpartition("/")[2]))
        return LeaseGranted(lease_seconds=5, orders=Orders(outcomes=True, shadow=shadow))

    def outcomes(self, replica_id: str) -> ReplicaOutcomes:
        """What a replica says from now on."""
        since = len(self.calls)

        def look() -> ReplicaOutcomes | None:
            mine = [
                body for method, path, _, body in self.calls[since:] if method == "PUT" and path.endswith(replica_id)
            ]
            told = [ReplicaLease.model_validate_json(body).outcomes for body in mine]
            # The first may have been on its way already.
            return told[-1] if len(told) > 1 else None

        return eventually(look, f"{replica_id} says outcomes")


def save_changed(path: Path, weights: np.ndarray[Any, Any]) -> Path:
    """`save_linear` with other weights."""
    return save_model(
        path,
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": (TensorProto.FLOAT, ["n", 64])},
        {"y": (TensorProto.FLOAT, ["n", weights.shape[1]])},
        {"w": weights},
    )


def save_failing(path: Path) -> Path:
    """`save_linear` that takes no rows that begin with `BAD_ROW`: it looks behind a table's end."""
    nodes = [
        helper.make_node("Gather", ["x", "first"], ["head"], axis=1),
        helper.make_node("Clip", ["head", "low", "high"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "place"], ["nothing"], axis=0),
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Add", ["product", "nothing"], ["y"]),
    ]
    constants = {
        "first": np.array([0], np.int64), "low": np.float32(0), "high": np.float32(BAD_ROW), "table": np.zeros(50, np.float32),
        "w": linear_weights(),
    }  # fmt: skip
    made = {name: np.asarray(value) for name, value in constants.items()}
    return save_model(path, nodes, {"x": (TensorProto.FLOAT, ["n", 64])}, {"y": (TensorProto.FLOAT, ["n", 10])}, made)


def models(folder: Path) -> Mapping[str, Path]:
    right = linear_weights()
    one_class = right.copy()
    one_class[:, 3] = -right[:, 3]
    return {
        "stable": save_linear(folder / "stable.onnx"),
        "equal": save_linear(folder / "equal.onnx"),
        "wrong": save_changed(folder / "wrong.onnx", right[:, ::-1].copy()),
        "one-class": save_changed(folder / "one-class.onnx", one_class),
        "wider": save_changed(folder / "wider.onnx", np.hstack([right, right[:, :1]])),
        "failing": save_failing(folder / "failing.onnx"),
    }


class Scene:
    """The replicas, by the name of their model, and the agent that they all know."""

    def __init__(self, agent: OrderingAgent, replicas: Mapping[str, ReplicaProcess]) -> None:
        self.agent = agent
        self.replicas = replicas
        self._orders = 0

    def peer(self, name: str) -> ShadowPeer:
        return ShadowPeer(address=self.replicas[name].address)

    def order(self, *candidates: ShadowPeer, twins: Sequence[str] = ("equal",), **more: Any) -> str:
        """Have the stable one shadow, and wait until it does so. Returns the candidate's name."""
        self._orders += 1
        revision = f"c{self._orders}"
        given = {"share": 1.0} | more
        orders = ShadowOrders(revision=revision, candidate=candidates, twins=tuple(map(self.peer, twins)), **given)
        self.agent.orders["stable"] = orders
        eventually(lambda: self._told().revision == revision, "the stable replica has its orders")
        return revision

    def _told(self) -> ShadowOutcomes:
        return self.agent.outcomes("stable").shadow or ShadowOutcomes()

    def shown(self, count: int) -> ShadowOutcomes:
        """What the stable one has counted once it has shown so many, or given them up."""
        return eventually(
            lambda: told if (told := self._told()).samples + told.dropped >= count else None, f"{count} samples"
        )

    def infer(self, rows: np.ndarray[Any, Any], name: str = "stable", **headers: str) -> httpx.Response:
        return self.replicas[name].infer(document(rows), headers=GATEWAY | headers)

    def show(self, inputs: Sequence[np.ndarray[Any, Any]]) -> ShadowOutcomes:
        """Ask one after the other, each once the one before was shown: none is dropped then."""
        before = self._told()
        for count, rows in enumerate(inputs, before.samples + before.dropped + 1):
            assert self.infer(rows).status_code == 200
            self.shown(count)
        return self._told()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    agent = OrderingAgent()
    settings = {"gateways": (agent.url,), "registration_token": TOKEN, "lease_seconds": 0.15}
    with ExitStack() as stack:
        stack.callback(agent.close)
        started = {
            name: stack.enter_context(replica(path, replica_id=name, revision=name, **settings))
            for name, path in models(tmp_path_factory.mktemp("models")).items()
        }
        for name in started:
            agent.outcomes(name)
        yield Scene(agent, started)


def classes(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = (rows @ linear_weights()).argmax(axis=-1)
    return found


def test_an_equal_candidate_differs_in_nothing(scene: Scene) -> None:
    revision = scene.order(scene.peer("equal"))
    told = scene.show(ROWS[:8])
    assert told == ShadowOutcomes(
        revision=revision, samples=8, candidate_loss={ZERO: 8}, twin_loss={ZERO: 8}, excess={ZERO: 8}
    )


def test_a_replica_without_a_twin_asks_itself(scene: Scene) -> None:
    scene.order(scene.peer("wrong"), twins=())
    told = scene.show(ROWS[:4])
    assert (told.samples, told.twin_loss) == (4, {ZERO: 4})
    assert told.candidate_loss_sum > 2


def test_wrong_answers_are_counted_and_described(scene: Scene) -> None:
    scene.order(scene.peer("wrong"))
    told = scene.show(ROWS[:6])
    assert (told.samples, told.twin_loss, told.failed) == (6, {ZERO: 6}, 0)
    assert told.candidate_loss_sum > 3
    assert told.worst[0].output == "y"
    assert told.worst[0].told.startswith("output 'y' [2, 10]: 2 of 2 rows differ by Argmax")
    assert " and " not in told.worst[0].told


def test_numbers_are_told_where_payloads_may_be_kept(scene: Scene) -> None:
    scene.order(scene.peer("wrong"), keep_payloads=True)
    assert " and " in scene.show(ROWS[:1]).worst[0].told


def test_answers_that_are_wrong_for_one_class_are_found_among_the_right_ones(scene: Scene) -> None:
    scene.order(scene.peer("one-class"), loss="Argmax")
    rows = ROWS.reshape(-1, 1, 64)
    third = classes(rows)[:, 0] == 3
    told = scene.show([*rows[third][:3], *rows[~third][:5]])
    assert told.samples == 8
    # One that is wrong here and there where the third class was second is wrong, too.
    assert told.excess[ONE] >= 3
    assert told.excess[ZERO] >= 1


def test_another_shape_is_a_loss_of_1(scene: Scene) -> None:
    scene.order(scene.peer("wider"))
    told = scene.show(ROWS[:2])
    assert (told.excess, told.failed) == ({ONE: 2}, 0)
    assert told.worst[0].told == "output 'y' has shape [2, 11], not [2, 10]"


def test_an_input_that_the_candidate_alone_does_not_take_is_counted_as_failed(scene: Scene) -> None:
    scene.order(scene.peer("failing"))
    rows = ROWS[:10].copy()
    rows[6, 0, 0] = BAD_ROW
    told = scene.show(rows)
    assert (told.samples, told.failed, told.excess) == (10, 1, {ZERO: 9, ONE: 1})
    assert told.worst[0].told.startswith("HTTP 400 ")


def test_what_the_twin_fails_at_tells_nothing(scene: Scene) -> None:
    scene.order(scene.peer("equal"), twins=("failing",))
    rows = ROWS[:3].copy()
    rows[1, 0, 0] = BAD_ROW
    told = scene.show(rows)
    assert (told.samples, told.dropped, told.excess) == (2, 1, {ZERO: 2})


def test_clients_get_the_same_bytes_with_and_without_shadowing(scene: Scene) -> None:
    def answers() -> list[tuple[int, bytes, list[tuple[str, str]]]]:
        found = (scene.infer(rows) for rows in ROWS[:10])
        return [(each.status_code, each.content, each.headers.multi_items()) for each in found]

    scene.agent.orders.pop("stable", None)
    before = answers()
    scene.order(scene.peer("wrong"))
    assert answers() == before
    assert scene.shown(1).samples


def test_clients_are_answered_while_a_peer_holds_every_connection(scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        scene.order(ShadowPeer(address=f"{host}:{port}"))
        # Two are under way and eight wait; by the bound on samples a second, not each request need be one.
        rows = itertools.cycle(ROWS)
        told = eventually(
            lambda: told if scene.infer(next(rows)).status_code == 200 and (told := scene._told()).dropped else None,
            "samples are dropped",
        )
        assert told.samples == 0
    assert scene.infer(ROWS[0]).status_code == 200


@pytest.mark.parametrize("how", ["nobody listens", "it is no host:port", "it is of no replica of this model"])
def test_a_peer_that_is_gone_tells_nothing(scene: Scene, how: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"127.0.0.1:{gone.getsockname()[1]}"
    address = {"nobody listens": address, "it is no host:port": "nobody"}.get(
        how, scene.agent.url.removeprefix("http://")
    )
    scene.order(ShadowPeer(address=address))
    told = scene.show(ROWS[:2])
    if how == "it is of no replica of this model":
        # The agent takes no POST: 501.
        assert (told.samples, told.failed) == (2, 2)
    else:
        assert (told.samples, told.dropped) == (0, 2)


def test_orders_that_end_and_come_again_go_on_counting(scene: Scene) -> None:
    scene.order(scene.peer("equal"))
    assert scene.show(ROWS[:2]).samples == 2
    given = scene.agent.orders.pop("stable")
    scene.agent.outcomes("stable")
    assert scene.infer(ROWS[0]).status_code == 200
    assert scene.agent.outcomes("stable").shadow == scene._told()
    scene.agent.orders["stable"] = given
    eventually(lambda: scene.infer(ROWS[0]).status_code == 200 and scene._told().samples > 2, "it counts on")


def test_what_is_shown_is_no_demand_and_shown_to_nobody_else(scene: Scene) -> None:
    # The twin is to shadow, too; it has no clients of its own.
    scene.agent.orders["equal"] = ShadowOrders(revision="x", candidate=(scene.peer("wrong"),), share=1.0)
    eventually(lambda: scene.agent.outcomes("equal").shadow is not None, "the twin has its orders")
    try:
        before = scene.agent.outcomes("equal")
        scene.order(scene.peer("equal"))
        assert scene.show(ROWS[:5]).samples == 5
        twin = scene.agent.outcomes("equal")
        assert twin.shadow is not None
        assert (twin.shadow.samples, twin.shadow.dropped) == (0, 0)
        assert (twin.answered, twin.failed, twin.late) == (before.answered, before.failed, 0)
        assert scene.replicas["equal"].stats().arrival_rate == 0
        text = scene.replicas["equal"].get("/metrics", headers=GATEWAY).text
        assert 'penstock_requests_total{model="tiny"' not in text
    finally:
        del scene.agent.orders["equal"]
        eventually(lambda: scene.infer(ROWS[0]).status_code == 200, "")


def test_only_who_knows_the_word_is_taken_for_a_replica(scene: Scene) -> None:
    traced = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    words = shadow_words(TOKEN)
    before = scene.agent.outcomes("wider").answered
    for word, counts, traces in (*((word, 0, False) for word in words.values()), ("sampled", 1, True)):
        answer = scene.infer(ROWS[0], "wider", **traced, **{SHADOW_HEADER: word})
        assert answer.status_code == 200
        assert ("traceresponse" in answer.headers) is traces
        assert scene.agent.outcomes("wider").answered == before + counts


def shown_to(scene: Scene, name: str) -> tuple[int, int]:
    """What was shown to a replica and answered, and of those, how many were alone."""
    told = scene.agent.outcomes(name).shown
    return (0, 0) if told is None else (told.answered, sum(told.seconds.values()))


def test_without_traffic_inputs_are_replayed_and_count_in_both_apart_from_clients_requests(scene: Scene) -> None:
    before = {name: scene.agent.outcomes(name).answered for name in ("stable", "equal", "wrong")}
    shown = {name: shown_to(scene, name) for name in ("equal", "wrong")}
    own = shown_to(scene, "stable")
    scene.order(scene.peer("wrong"), share=0.0, replay=True)

    def made() -> ShadowOutcomes | None:
        told = scene._told()
        return told if told.made is not None and told.made.samples >= 5 and told.replayed >= 5 else None

    told = eventually(made, "made inputs are shown, and clients' once more")
    assert told.made is not None
    assert told.samples == 0, "no client has sent any"
    assert told.made.twin_loss_sum == 0
    assert told.made.candidate_loss_sum > 1
    scene.agent.orders.pop("stable")
    after = {name: scene.agent.outcomes(name).answered for name in before}
    assert after == before
    for name, (answered, alone) in shown.items():
        now = shown_to(scene, name)
        assert now[0] - answered >= told.made.samples
        assert now[1] - alone >= told.made.samples + told.replayed, "there was nothing else in it"
    assert shown_to(scene, "stable") == own, "what it asks itself is no evidence"


def test_replicas_behind_a_real_gateway_show_each_other_samples_over_tls(tmp_path: Path) -> None:
    model = save_linear(tmp_path / "model.onnx")
    np.savez(tmp_path / "named.npz", x=ROWS[:4, 0])
    named = {"uri": (tmp_path / "named.npz").as_uri()}
    compared = {"candidate": "v2", "stable": "v1", "replay": True, "samples": named}

    async def scenario() -> None:
        async with asyncio.timeout(120), secured() as running:
            await running.gateway.declare("default/tiny", revisions={"v1": 100}, comparison=compared)
            settings: dict[str, Any] = {
                "gateways": (running.url,), "gateway_authority": AUTHORITY.pem, "registration_token": token_of("default/tiny"),
                "lease_seconds": 0.6,
            }  # fmt: skip
            with (
                replica(model, revision="v1", replica_id="s", **settings),
                replica(model, revision="v2", replica_id="c", **settings),
            ):

                async def told() -> ShadowOutcomes:
                    stable = (await replica_outcomes(running.gateway)).get("v1") or ReplicaOutcomes()
                    return stable.shadow or ShadowOutcomes()

                async def made() -> MadeOutcomes:
                    return (await told()).made or MadeOutcomes()

                async def several() -> bool:
                    return (await made()).samples > 6

                await until(several)
                found = await made()
                assert found.supplied == 4, "samples that were named, each once"
                # Its own twin, too, is asked by its name.
                assert found.excess == {ZERO: found.samples}

    asyncio.run(scenario())
