"""What gateways are told of a namespace's keys, and how much of it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import cast

import httpx
import pytest

from penstock.api.access import APIKey
from penstock.errors import PenstockError
from penstock.routing.access import fingerprint
from penstock.routing.fleet import FEATURES, Endpoint, GatewayState
from penstock.routing.keys import KeyChange, KeyDigests, KeySet
from penstock.routing.leases import RouteList
from penstock_operator.clients.gateway import GatewayClient
from penstock_operator.gateway.fleet import Fleet
from penstock_operator.gateway.view import GatewayView
from penstock_operator.keys.directory import KeyDirectory
from penstock_operator.keys.telling import KeyTeller


@dataclass
class Agent:
    """A gateway's agent in this process, which holds keys as the real one does."""

    features: frozenset[str] = FEATURES
    held: dict[str, KeySet] = field(default_factory=dict)
    heard: list[KeyChange] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    refuses: bool = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url.path}")
        if request.url.path == "/v1/routes":
            headers = GatewayState("i", features=self.features).headers()
            return httpx.Response(200, text=RouteList(url="http://g", routes=[]).model_dump_json(), headers=headers)
        if request.method == "GET":
            digests = {namespace: keys.digest for namespace, keys in self.held.items()}
            return httpx.Response(200, text=KeyDigests(digests=digests).model_dump_json())
        namespace = request.url.path.rpartition("/")[2]
        if request.method == "DELETE":
            self.held.pop(namespace, None)
            return httpx.Response(204)
        change = KeyChange.model_validate_json(request.content)
        self.heard.append(change)
        try:
            self.held[namespace] = self.held.get(namespace, KeySet()).apply(change)
        except PenstockError as error:
            return httpx.Response(403, text=error.message)
        return httpx.Response(400 if self.refuses else 204)


class World:
    """One gateway, and the keys of all namespaces."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.view = GatewayView(
            GatewayClient(Endpoint("http://g:1", "http://10.0.0.1:1"), "token", httpx.MockTransport(agent)), lambda: 0.0
        )
        self.present: dict[str, list[APIKey]] = {}
        self.restart()

    def sites(self) -> tuple[tuple[GatewayView, ...], ...]:
        return ((self.view,),)

    def keys(self, namespace: str) -> tuple[APIKey, ...]:
        return tuple(self.present.get(namespace, ()))

    def restart(self) -> None:
        """Another operator, which remembers nothing."""
        self.teller = KeyTeller(cast(Fleet, self), cast(KeyDirectory, self), lambda: 0.0)


def key(name: str) -> APIKey:
    return APIKey.model_validate({"metadata": {"name": name, "namespace": "ns"}, "spec": {"sha256": fingerprint(name)}})


def names(change: KeyChange) -> tuple[list[str], int]:
    return [each.name for each in change.added], len(change.removed)


def test_a_change_of_one_key_is_a_short_word() -> None:
    world = World(Agent())
    world.present["ns"] = [key(f"k{each}") for each in range(9)]
    assert not world.teller.tell("ns")
    world.present["ns"] = [*world.present["ns"][1:], key("more")]
    assert not world.teller.tell("ns")
    assert not world.teller.tell("ns")
    assert [names(each) for each in world.agent.heard] == [([f"k{each}" for each in range(9)], 0), (["more"], 1)]


def test_one_that_holds_others_than_was_thought_is_told_all() -> None:
    world = World(Agent())
    world.present["ns"] = [key("a"), key("b")]
    world.teller.tell("ns")
    for held in (KeySet(), KeySet.from_keys([])):
        world.agent.held["ns"] = held
        world.present["ns"] = [key(f"c{len(world.agent.heard)}")]
        assert not world.teller.tell("ns")
        assert world.agent.held["ns"].keys.keys() == {fingerprint(each.metadata.name) for each in world.present["ns"]}


def test_another_operator_tells_nothing_that_is_known() -> None:
    world = World(Agent())
    world.present["ns"] = [key("a")]
    world.teller.tell("ns")
    world.restart()
    assert not world.teller.tell("ns")
    assert len(world.agent.heard) == 1


def test_one_that_refuses_is_named_and_told_again() -> None:
    world = World(Agent(refuses=True))
    world.present["ns"] = [key("a")]
    (problem,) = world.teller.tell("ns")
    assert "answers HTTP 400 to PUT /v1/keys/ns" in problem.message
    world.agent.refuses = False
    world.agent.held.clear()
    assert not world.teller.tell("ns")


def test_one_of_a_former_release_is_told_nothing() -> None:
    world = World(Agent(features=frozenset()))
    world.present["ns"] = [key("a")]
    assert not world.teller.tell("ns")
    assert world.teller.look(world.view, ["ns"], None)
    assert {each.partition("/v1/")[2] for each in world.agent.asked} == {"routes"}


@pytest.mark.parametrize(
    ("forgotten", "left"),
    [pytest.param(None, {"ns"}, id="everywhere"), pytest.param(["gone"], {"ns", "others"}, id="where it looks after")],
)
def test_a_look_mends_what_differs(forgotten: list[str] | None, left: set[str]) -> None:
    world = World(Agent())
    world.present["ns"] = [key("a")]
    world.agent.held |= {"gone": KeySet.from_keys([]), "others": KeySet.from_keys([])}
    assert world.teller.look(world.view, ["ns"], forgotten)
    assert world.agent.held.keys() == left
    assert world.agent.held["ns"].keys.keys() == {fingerprint("a")}


def test_who_read_the_keys_before_one_was_taken_away_tells_them_no_later() -> None:
    world = World(Agent())
    world.present["ns"] = [key("a"), key("gone")]
    assert not world.teller.tell("ns")
    was_read, told = threading.Event(), threading.Event()
    present = world.keys

    def slowly(namespace: str) -> tuple[APIKey, ...]:
        found = present(namespace)
        if threading.current_thread().name == "slow":
            was_read.set()
            told.wait(1)
        return found

    world.keys = slowly  # type: ignore[method-assign]  # the directory's own
    world.present["ns"] = [*world.present["ns"], key("late")]
    slow = threading.Thread(target=world.teller.tell, args=("ns",), name="slow")
    slow.start()
    assert was_read.wait(10)
    world.present["ns"] = [key("a")]
    assert not world.teller.tell("ns")
    told.set()
    slow.join()
    assert set(world.agent.held["ns"].keys) == {fingerprint("a")}
