from __future__ import annotations

import pytest

from penstock_serving.gateway.haproxy.plan import (
    CHECK,
    DesiredState,
    Maps,
    ObservedServer,
    ObservedState,
    RuntimeCommands,
    Server,
    assign,
    desire,
    list_places,
    plan,
    recall,
    server_name,
    state_after,
)
from penstock_serving.gateway.haproxy.runtime_socket import parse_map, parse_servers, portions
from penstock_serving.gateway.memory import BUFFER_BYTES
from penstock_serving.gateway.table.traffic import LOTS, Arm, Destination, Target

A, B = Target("a", "h:1", 256), Target("b", "h:2", 256)
LIVE = ObservedServer(256, maintenance=False)
LEAVING = ObservedServer(256, maintenance=True)


def to(*targets: Target, sampled: int = 0) -> Destination:
    return Destination(targets, sampled)


def shared(place: str, lots: int, *, sticky: bool = False) -> Destination:
    """By `A` with so many lots, and `B` with the others."""
    arms = Arm(f"{place}#a", lots, (A,)), Arm(f"{place}#b", LOTS - lots, (B,))
    return Destination((A, B), 0, arms, sticky)


@pytest.mark.parametrize(
    ("desired", "observed", "expected"),
    [
        (DesiredState({"m0": {"ra": Server("h:1", 256)}}, {"ns/m": "m0|0"}), ObservedState({"m0": {"ra": LIVE}}, {"ns/m": "m0|0"}), RuntimeCommands((), ())),
        (
            DesiredState({"m0": {"ra": Server("h:1", 256)}}, {"ns/m": "m0|5"}),
            ObservedState({"m0": {}}, {}),
            RuntimeCommands(
                (
                    f"add server m0/ra h:1 weight 256 {CHECK}",
                    "enable health m0/ra",
                    "enable server m0/ra",
                    "add map /m ns/m m0|5",
                ),
                (),
            ),
        ),
        (
            DesiredState({}, {}),
            ObservedState({"m0": {"ra": LIVE}}, {"ns/m": "m0|0"}),
            RuntimeCommands(("del map /m ns/m", "set server m0/ra state maint"), ("del server m0/ra",)),
        ),
        (DesiredState({}, {}), ObservedState({"m0": {"ra": LEAVING}}, {}), RuntimeCommands((), ("del server m0/ra",))),
        (
            DesiredState({"m0": {"ra": Server("h:1", 9)}}, {}),
            ObservedState({"m0": {"ra": LEAVING}}, {}),
            RuntimeCommands(("set server m0/ra weight 9", "set server m0/ra state ready"), ()),
        ),
        (
            DesiredState({"m1": {"ra": Server("h:1", 256)}}, {"ns/m": "w0|0", "0:w0": "m1"}),
            ObservedState({"m0": {"ra": LIVE}, "m1": {}}, {"ns/m": "m0|0"}),
            RuntimeCommands(
                (
                    f"add server m1/ra h:1 weight 256 {CHECK}",
                    "enable health m1/ra",
                    "enable server m1/ra",
                    "add map /m 0:w0 m1",
                    "set map /m ns/m w0|0",
                    "set server m0/ra state maint",
                ),
                ("del server m0/ra",),
            ),
        ),
        (
            DesiredState({"m0": {"ra": Server("h:1", 256, 90), "rb": Server("h:2", 256, 40)}}, {}),
            ObservedState({"m0": {"ra": LIVE}}, {}),
            RuntimeCommands(
                (
                    "set maxconn server m0/ra 90",
                    f"add server m0/rb h:2 weight 256 maxconn 40 {CHECK}",
                    "enable health m0/rb",
                    "enable server m0/rb",
                ),
                (),
            ),
        ),
        (
            DesiredState({"m0": {"ra": Server("h:1", 256)}}, {}),
            recall(ObservedState({"m0": {"ra": LIVE}}, {}), {"m0": {"ra": 90}}),
            RuntimeCommands(("set maxconn server m0/ra 0",), ()),
        ),
        (
            DesiredState({"m0": {"ra": Server("h:1", 256, 90)}}, {}),
            recall(ObservedState({"m0": {"ra": LIVE}}, {}), {}),
            RuntimeCommands(("set maxconn server m0/ra 90",), ()),
        ),
    ],
    ids=[
        "nothing to do where all is as wanted",
        "a new replica is enabled before the map leads to it",
        "a route that ends leaves the map before its servers leave",
        "a server that was busy is removed later",
        "a replica that comes back while it leaves stays",
        "a path that several share leads to lots once these lead to replicas",
        "a server gets as many requests as its replica has room for",
        "a replica that says no more how many it takes gets all",
        "a bound that nobody remembers is told again",
    ],
)  # fmt: skip
def test_commands(desired: DesiredState, observed: ObservedState, expected: RuntimeCommands) -> None:
    assert plan(desired, observed, Maps("/m", "/l", "/g", "/u")) == expected


@pytest.mark.parametrize(
    ("places", "previous", "unfit", "expected"),
    [
        ({"a": True, "b": True}, {}, (), {"a": 0, "b": 1}),
        ({"a": True, "b": True}, {"b": 0}, (), {"a": 1, "b": 0}),
        ({"a": False}, {}, (), {}),
        ({"a": False}, {"a": 1}, (), {"a": 1}),
        ({"a": True}, {"gone": 0}, (), {"a": 0}),
        ({"a": True}, {}, (0,), {"a": 1}),
        ({"a": True, "b": True}, {}, (0,), None),
        ({"a": True, "b": True, "c": True}, {}, (), None),
    ],
    ids=[
        "each path gets a slot",
        "a path keeps its slot",
        "a path that never had a replica needs none",
        "a path at zero replicas keeps its slot",
        "a forgotten path gives its slot back",
        "a slot with requests of another path is not given",
        "a slot that may not be given can be the one too few",
        "too many paths need more slots",
    ],
)
def test_slots(
    places: dict[str, bool], previous: dict[str, int], unfit: tuple[int, ...], expected: dict[str, int] | None
) -> None:
    assert assign(places, previous, 2, unfit) == expected


def test_paths_and_arms_have_places() -> None:
    assert list_places({"ns/m": to(A), "ns/w": shared("ns/w", 1), "ns/zero": to()}) == {
        "ns/m": True, "ns/w": True, "ns/w#a": True, "ns/w#b": True, "ns/zero": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sticky", "way"), [pytest.param(False, "w3", id="by chance"), pytest.param(True, "s3", id="by caller")]
)
def test_a_path_that_several_revisions_share_leads_to_lots(*, sticky: bool, way: str) -> None:
    destination = shared("ns/w", 2, sticky=sticky)
    found = desire({"ns/w": destination}, {"ns/w": 3, "ns/w#a": 4, "ns/w#b": 0}, {}, {})
    assert found.backends == {
        "m4": {server_name(A): Server("h:1", 256)}, "m0": {server_name(B): Server("h:2", 256)},
    }  # fmt: skip
    lots = {f"{lot}:{way}": "m4" if lot < 2 else "m0" for lot in range(LOTS)}
    assert found.entries == {"ns/w": f"{way}|0|", **lots}
    assert found.usual == {"/ns/v2/models/w/infer": f"-41000000|{way}||||||ns/"}
    # Until each arm has a place, the agent answers.
    assert desire({"ns/w": destination}, {"ns/w": 3, "ns/w#a": 4}, {}, {}).entries == {"ns/w": "agent|0|"}


def test_another_share_is_told_without_a_server_that_leaves_or_comes() -> None:
    slots = {"ns/w": 0, "ns/w#a": 1, "ns/w#b": 2}
    before, after = (desire({"ns/w": shared("ns/w", lots)}, slots, {}, {}) for lots in (5, 25))
    observed = state_after(before, ObservedState({"m0": {}, "m1": {}, "m2": {}}, {}))
    told = plan(after, observed, Maps("/m", "/l", "/g", "/u"))
    assert told == RuntimeCommands(tuple(f"set map /m {lot}:w0 m1" for lot in range(5, 25)), ())


def test_what_is_desired_of_haproxy() -> None:
    destinations = {"ns/m": to(A, sampled=10), "ns/zero": to(), "ns/new": to(sampled=7)}
    assert desire(
        destinations,
        {"ns/m": 0, "ns/zero": 1},
        {"ns/m": "k|0"},
        {"ns/A": "key/a|0|9|*"},
        token=lambda path, uid: f"{path}{uid}",
    ) == DesiredState(
        {"m0": {server_name(A): Server("h:1", 256)}},
        {"ns/m": "m0|10|ns/m", "ns/zero": "agent|0|ns/zero", "ns/new": "agent|7|ns/new"},
        {"ns/m": "k|0"},
        {"ns/A": "key/a|0|9|*"},
        {"/ns/v2/models/m/infer": "-20999990|m0||||||ns/ns/m"},
    )


def test_a_servers_name_is_safe_and_changes_with_the_address() -> None:
    assert server_name(A) == server_name(Target("a", "h:1", 1))
    assert server_name(A) != server_name(Target("a", "h:2", 256))
    assert server_name(A) != server_name(Target("a", "h:1", 256, tls_name="n"))
    assert server_name(Target("a b;#/", "h:1", 1)).isalnum()


def test_a_replica_that_speaks_tls_must_prove_its_name_to_requests_and_checks() -> None:
    target = Target("a", "h:1", 256, tls_name="name")
    found = desire({"ns/m": to(target)}, {"ns/m": 0}, {}, {}, authority="/run/authority.pem")
    (server,) = found.backends["m0"].values()
    told = server.settings.removeprefix(Server("h:1", 256).settings)
    assert told == " fastinter 2s downinter 2s check-ssl ssl verify required ca-file /run/authority.pem verifyhost name"


@pytest.mark.parametrize(
    ("commands", "sizes"),
    [([], []), (["c"] * 51, [50, 1]), (["c" * 9000] * 3, [1, 1, 1]), (["c" * 5000] * 4, [3, 1])],
    ids=["none", "so many at a time", "each as long as half a line may be", "as many as fit"],
)
def test_commands_fit_into_a_line_of_haproxys(commands: list[str], sizes: list[int]) -> None:
    found = list(portions(commands))
    assert [len(portion) for portion in found] == sizes
    assert [command for portion in found for command in portion] == commands
    assert all(len(";".join(portion)) < BUFFER_BYTES - 1024 for portion in found)


def test_haproxys_state_is_read() -> None:
    state = (
        "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight\n"
        "3 agent 1 agent - 2 0 1 1\n4 m0 1 agent - 2 0 1 1\n4 m0 2 ra 127.0.0.1 0 0 9 1\n5 w0 2 rb h 2 1 256 1\n\n"
    )
    assert parse_servers(state) == {
        "agent": {},
        "m0": {"ra": ObservedServer(9, maintenance=False)},
        "w0": {"rb": LEAVING},
    }
    assert parse_map("0x1 ns/m m0|0\n0x2 ns/m/1 agent|5\n\n") == {"ns/m": "m0|0", "ns/m/1": "agent|5"}


def test_after_a_plan_was_carried_out_nothing_is_left_to_do_and_every_backend_is_still_known() -> None:
    desired = DesiredState(
        {"m0": {"ra": Server("h:1", 9)}}, {"ns/m": "m0|0"}, {"ns/m": "lock"}, {"key": "grant"}, {"/ns/v2": "row"}
    )
    observed = ObservedState({"m0": {"ra": LIVE, "rb": LEAVING}, "w0": {"rc": LIVE}, "m1": {}}, {"ns/old": "w0|0"})
    after = state_after(desired, observed)
    assert plan(desired, observed, Maps("/m", "/l", "/g", "/u")).changes
    assert plan(desired, after, Maps("/m", "/l", "/g", "/u")) == RuntimeCommands((), ())
    assert set(after.backends) == set(observed.backends)
