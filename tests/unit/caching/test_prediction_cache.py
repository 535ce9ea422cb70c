"""The prediction cache: which requests are alike, what is kept, who waits for whom, and when it stands aside."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock.serving.settings import CacheMode, CacheSettings
from penstock_serving.replica.cache.cache import CacheResult, Flight, PredictionCache
from penstock_serving.replica.cache.keys import Array, InputKeys
from penstock_serving.replica.cache.payoff import PROBE_WINDOW, WINDOW, Payoff
from penstock_serving.replica.cache.store import AnswerStore

DIGEST = "sha256:" + "0" * 64


def signature(*inputs: TensorSpec) -> Signature:
    return Signature(inputs=inputs, outputs=(TensorSpec(name="y", datatype=DataType.FP32, shape=(-1, 1)),))


NUMBERS = signature(
    TensorSpec(name="a", datatype=DataType.FP32, shape=(-1, -1)),
    TensorSpec(name="b", datatype=DataType.FP32, shape=(-1, -1)),
)
TEXT = signature(TensorSpec(name="t", datatype=DataType.BYTES, shape=(-1,)))
ONE = signature(TensorSpec(name="x", datatype=DataType.INT64, shape=(-1,)))


def keys(of: Signature = NUMBERS, *, digest: str = DIGEST, tenant: str = "default") -> InputKeys:
    return InputKeys(digest, tenant, of)


def pair(a: Any, b: Any) -> dict[str, Array]:
    return {"a": np.array(a, np.float32), "b": np.array(b, np.float32)}


def text(*strings: bytes) -> dict[str, Array]:
    return {"t": np.array(strings, dtype=object)}


# Keys.

BASE = pair([[1, 2]], [[3, 4]])


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        pytest.param((NUMBERS, BASE), (NUMBERS, pair([[1, 2]], [[3, 4]])), True, id="equal values in other arrays"),
        pytest.param((NUMBERS, BASE), (NUMBERS, dict(reversed(BASE.items()))), True, id="inputs in another order"),
        pytest.param(
            (NUMBERS, BASE),
            (NUMBERS, pair(np.array([[1], [2]]).T, np.array([[3, 0], [4, 0]])[:, 0][None])),
            True,
            id="arrays that are not contiguous",
        ),
        pytest.param((NUMBERS, BASE), (NUMBERS, pair([[1, 2]], [[3, 5]])), False, id="one number differs"),
        pytest.param((NUMBERS, BASE), (NUMBERS, pair([[3, 4]], [[1, 2]])), False, id="two inputs are swapped"),
        pytest.param((NUMBERS, BASE), (NUMBERS, pair([[1], [2]], [[3], [4]])), False, id="another shape"),
        pytest.param(
            (NUMBERS, pair([[1, 2, 3]], [[4]])), (NUMBERS, pair([[1]], [[2, 3, 4]])), False, id="another border"
        ),
        pytest.param((NUMBERS, pair([[0.0]], [[1]])), (NUMBERS, pair([[-0.0]], [[1]])), False, id="0 and -0"),
        pytest.param((TEXT, text(b"ab", b"c")), (TEXT, text(b"a", b"bc")), False, id="strings cut elsewhere"),
        pytest.param((TEXT, text(b"ab")), (TEXT, text(b"ab", b"")), False, id="an empty string more"),
        pytest.param((TEXT, text(b"ab" * 900)), (TEXT, text(b"ab" * 900)), True, id="equal long strings"),
    ],
)
def test_keys_are_equal_only_for_identical_inputs(
    first: tuple[Signature, Mapping[str, Array]], second: tuple[Signature, Mapping[str, Array]], *, alike: bool
) -> None:
    (one, inputs), (other, others) = first, second
    assert (keys(one).key(inputs) == keys(other).key(others)) is alike
    if alike:
        assert keys(one).sample(inputs) == keys(other).sample(others)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(keys(digest="sha256:" + "1" * 64), id="another model"),
        pytest.param(keys(tenant="else"), id="another tenant"),
        pytest.param(
            keys(signature(*(spec.model_copy(update={"datatype": DataType.INT32}) for spec in NUMBERS.inputs))),
            id="another datatype of the same width",
        ),
        pytest.param(
            keys(signature(NUMBERS.inputs[0], NUMBERS.inputs[1].model_copy(update={"name": "a2"}))), id="another name"
        ),
    ],
)
@pytest.mark.parametrize("width", [1, 1000], ids=["in the bytes themselves", "in a digest"])
def test_what_else_a_key_depends_on(other: InputKeys, width: int) -> None:
    inputs = pair(np.ones((1, width)), np.ones((1, width)))
    inputs["a2"] = inputs["b"]
    assert keys().key(inputs) != other.key(inputs)


def test_a_key_holds_whether_an_input_that_may_be_left_out_was_given_and_the_shape_where_any_rank_is_taken() -> None:
    scale = TensorSpec(name="scale", datatype=DataType.FP32, shape=(2,))
    any_rank = TensorSpec(name="x", datatype=DataType.FP32, shape=(), any_rank=True)
    made = keys(Signature(inputs=(any_rank,), outputs=(), optional=(scale,)))
    flat = np.ones(4, np.float32)
    found = {
        made.key(inputs)
        for inputs in (
            {"x": flat},
            {"x": flat.reshape(2, 2)},
            {"x": flat.reshape(1, 4)},
            {"x": flat.reshape(4, 1)},
            {"x": flat[:0]},
            {"x": flat[:0].reshape(0, 4)},
            {"x": flat, "scale": flat[:2]},
            {"x": flat, "scale": flat[:2] * 2},
        )
    }
    assert len(found) == 8
    assert made.key({"x": flat}) == made.key({"x": flat.copy()})


@given(st.integers(1, 40), st.integers(1, 40), st.randoms(use_true_random=False))
def test_a_key_of_many_bytes_is_a_digest_and_no_single_bit_can_change_without_it(
    rows: int, width: int, random: Any
) -> None:
    inputs = pair(np.zeros((rows, width)), np.ones((rows, width)))
    key = keys().key(inputs)
    assert len(key) == 32 or len(key) == 64 + 8 * rows * width
    changed = {name: array.copy() for name, array in inputs.items()}
    raw = changed[random.choice("ab")].view(np.uint8).reshape(-1)
    raw[random.randrange(raw.size)] ^= 1 << random.randrange(8)
    assert keys().key(changed) != key


def test_samples_tell_images_with_the_same_border_apart() -> None:
    spec = signature(TensorSpec(name="x", datatype=DataType.UINT8, shape=(-1, 64, 64)))
    images = np.zeros((200, 1, 64, 64), np.uint8)
    images[:, :, 8:-8, 8:-8] = np.random.default_rng(0).integers(0, 255, (200, 1, 48, 48))
    assert len({keys(spec).sample({"x": image}) for image in images}) == 200


# The store.


def answer(number: float, width: int = 4) -> dict[str, Array]:
    return {"y": np.full((1, width), number, np.float32)}


operations = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 200), st.floats(0, 3), st.booleans()), min_size=1, max_size=200
)


@settings(max_examples=60)
@given(operations, st.integers(0, 6000), st.integers(0, 6000))
def test_the_store_never_exceeds_its_bytes_nor_gives_a_wrong_or_old_answer(
    steps: list[tuple[int, int, float, bool]], bound: int, later_bound: int
) -> None:
    store, now = AnswerStore(bound, 5.0), 0.0
    kept: dict[bytes, tuple[float, float]] = {}
    for index, (number, width, passed, keep) in enumerate(steps):
        now += passed
        key = b"%032d" % number
        if index == len(steps) // 2:
            bound = later_bound
            store.resize(bound, 2.5, now)
        if keep and store.keep(key, answer(index, width), now):
            kept[key] = (index, now)
        found = store.find(key, now)
        if found is not None:
            value, since = kept[key]
            assert (found["y"] == value).all()
            assert now - since < (2.5 if index >= len(steps) // 2 else 5.0)
        assert 0 <= store.bytes_used <= bound
    store.resize(0, 1.0, now)
    assert (store.bytes_used, len(store)) == (0, 0)


def test_an_answer_lives_as_long_as_it_may_and_no_longer() -> None:
    store = AnswerStore(10_000, 5.0)
    store.keep(b"k", answer(1), 100.0)
    assert store.find(b"k", 104.9) is not None
    assert store.find(b"k", 105.0) is None
    assert store.bytes_used == 0


def test_a_kept_answer_is_a_copy_that_nobody_can_change() -> None:
    store = AnswerStore(10_000, 5.0)
    batch = np.arange(8, dtype=np.float32).reshape(4, 2)
    store.keep(b"k", {"y": batch[1:2]}, 0.0)
    batch[:] = -1
    found = store.find(b"k", 0.0)
    assert found is not None
    assert found["y"].tolist() == [[2, 3]]
    assert found["y"].base is None
    with pytest.raises(ValueError, match="read-only"):
        found["y"][0, 0] = 7


def test_what_is_asked_for_again_survives_a_flood_of_what_is_not() -> None:
    store = AnswerStore(100_000, 1e9)
    popular = [b"popular-%d" % number for number in range(10)]
    for key in popular:
        store.keep(key, answer(1), 0.0)
    for number in range(5000):
        if number % 20 == 0:
            found = [store.find(key, 0.0) for key in popular]
            assert None not in found
        store.keep(b"once-%d" % number, answer(2), 0.0)
    assert store.evictions > 4000


def test_one_that_comes_back_soon_after_it_left_gets_a_place_in_the_main_queue() -> None:
    store = AnswerStore(50_000, 1e9)
    store.keep(b"back", answer(1), 0.0)
    for number in range(100):
        store.keep(b"a%d" % number, answer(2), 0.0)
    assert store.find(b"back", 0.0) is None
    store.keep(b"back", answer(1), 0.0)
    for number in range(100):
        store.keep(b"b%d" % number, answer(2), 0.0)
    assert store.find(b"back", 0.0) is not None


def test_an_answer_that_is_larger_than_all_is_not_kept_and_displaces_nothing() -> None:
    store = AnswerStore(10_000, 1e9)
    store.keep(b"small", answer(1), 0.0)
    assert not store.keep(b"large", answer(2, 5000), 0.0)
    strings = {"y": np.array([b"x" * 20_000], dtype=object)}
    assert not store.keep(b"strings", strings, 0.0)
    assert store.find(b"small", 0.0) is not None


@pytest.mark.parametrize("width", [10, 1000], ids=["small answers", "large answers"])
def test_the_accounted_bytes_cover_what_the_interpreter_uses(width: int) -> None:
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    store = AnswerStore(1 << 21, 1e9)
    for number in range(6000):
        store.keep(b"%0256d" % number, answer(number, width), 0.0)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert store.evictions > 0
    assert 0.6 * store.bytes_used < after - before < 1.05 * store.bytes_used


# Flights.


def cache(max_bytes: int = 1 << 20, ttl: float = 60.0) -> PredictionCache[str]:
    return PredictionCache(keys(ONE), CacheSettings(mode=CacheMode.EXACT, max_bytes=max_bytes, ttl_seconds=ttl))


def number(value: int) -> dict[str, Array]:
    return {"x": np.array([value], np.int64)}


def ask(target: PredictionCache[str], value: int, asker: str, urgency: int = 8, now: float = 0.0) -> CacheResult:
    found = target.ask(number(value), asker, urgency, now)
    if found is None:
        return CacheResult.BYPASS
    if not isinstance(found, Flight):
        return CacheResult.HIT
    return CacheResult.MISS if found.leader == asker else CacheResult.SHARED


def led(target: PredictionCache[str], value: int, asker: str, urgency: int = 8) -> Flight[str]:
    found = target.ask(number(value), asker, urgency, 0.0)
    assert isinstance(found, Flight)
    assert found.leader == asker
    return found


def test_identical_requests_share_one_run_and_later_ones_its_answer() -> None:
    target = cache()
    flight = led(target, 1, "a")
    assert ask(target, 1, "b") is CacheResult.SHARED
    assert ask(target, 2, "c") is CacheResult.MISS
    assert ask(target, 1, "d") is CacheResult.SHARED
    assert target.waiting == 2
    assert target.land(flight, answer(7), 0.0) == ("b", "d")
    found = target.ask(number(1), "e", 8, 1.0)
    assert isinstance(found, dict)
    assert found["y"].tolist() == answer(7)["y"].tolist()
    assert target.results == {
        CacheResult.HIT: 1,
        CacheResult.MISS: 2,
        CacheResult.SHARED: 2,
        CacheResult.BYPASS: 0,
    }
    assert (target.waiting, target.entries) == (0, 1)


def test_a_failure_goes_to_all_who_waited_and_is_not_kept() -> None:
    target = cache()
    flight = led(target, 1, "a")
    ask(target, 1, "b")
    assert target.lose(flight) == ("b",)
    assert target.entries == 0
    assert ask(target, 1, "c") is CacheResult.MISS


def test_the_run_goes_on_for_the_followers_of_a_leader_whose_client_has_gone() -> None:
    target = cache()
    flight = led(target, 1, "a")
    ask(target, 1, "b")
    assert not target.leave(flight, "a")
    assert ask(target, 1, "c") is CacheResult.SHARED
    assert target.land(flight, answer(1), 0.0) == ("b", "c")


def test_a_run_that_nobody_waits_for_is_not_wanted_and_the_next_identical_request_leads_one_of_its_own() -> None:
    target = cache()
    flight = led(target, 1, "a")
    ask(target, 1, "b")
    assert not target.leave(flight, "a")
    assert target.leave(flight, "b")
    assert target.waiting == 0
    second = led(target, 1, "c")
    # The first run could not be stopped after all: its answer is good, and the second flight is not disturbed.
    assert target.land(flight, answer(1), 0.0) == ()
    assert ask(target, 1, "d") is CacheResult.HIT
    assert target.land(second, answer(1), 0.0) == ()


def test_a_follower_that_leaves_gets_nothing() -> None:
    target = cache()
    flight = led(target, 1, "a")
    ask(target, 1, "b")
    ask(target, 1, "c")
    assert not target.leave(flight, "b")
    assert target.land(flight, answer(1), 0.0) == ("c",)


def test_the_first_follower_leads_when_the_leader_could_not_run() -> None:
    target = cache()
    flight = led(target, 1, "a")
    for asker in "bcd":
        ask(target, 1, asker)
    assert target.promote_follower(flight) == "b"
    assert flight.leader == "b"
    assert target.waiting == 2
    assert target.land(flight, answer(1), 0.0) == ("c", "d")
    assert target.results[CacheResult.MISS] == 2
    assert target.results[CacheResult.SHARED] == 2
    alone = led(target, 2, "e")
    assert target.promote_follower(alone) is None
    assert led(target, 2, "f") is not alone


def test_an_urgent_request_does_not_wait_behind_one_that_lets_others_pass() -> None:
    target = cache()
    slow = led(target, 1, "a", urgency=8)
    urgent = led(target, 1, "b", urgency=1)
    assert ask(target, 1, "c", urgency=9) is CacheResult.SHARED
    assert target.land(urgent, answer(1), 0.0) == ()
    assert target.land(slow, answer(1), 0.0) == ("c",)


def test_off_frees_the_memory_and_what_is_in_flight_lands() -> None:
    target = cache()
    target.land(led(target, 1, "a"), answer(1), 0.0)
    flight = led(target, 2, "b")
    ask(target, 2, "c")
    target.reconfigure(CacheSettings(), 0.0)
    assert not target.enabled
    assert (target.bytes_used, target.entries) == (0, 0)
    assert target.land(flight, answer(2), 0.0) == ("c",)
    assert target.bytes_used == 0
    target.reconfigure(CacheSettings(mode=CacheMode.EXACT), 0.0)
    assert ask(target, 1, "d") is CacheResult.MISS


def test_a_shorter_life_and_less_room_hold_for_what_is_already_kept() -> None:
    target = cache()
    for value in range(100):
        target.land(led(target, value, "a"), answer(value), 0.0)
    target.reconfigure(CacheSettings(mode=CacheMode.EXACT, max_bytes=10_000, ttl_seconds=5), 1.0)
    assert target.bytes_used <= 10_000
    assert 0 < target.entries < 20
    assert target.evictions >= 80
    assert all(ask(target, value, "b", now=6.0) is not CacheResult.HIT for value in range(100))


# Whether it pays.

LOOKUP, STORE, RUN = 2e-6, 2e-6, 50e-6


def drive(target: PredictionCache[str], values: Any, run: float = RUN) -> dict[CacheResult, int]:
    """Requests one after the other, each answered before the next."""
    before = target.results
    for value in values:
        found = target.ask(number(int(value)), "r", 8, 0.0)
        target.observe_lookup(LOOKUP)
        if found is None or isinstance(found, Flight):
            target.observe_run(1, run)
        if isinstance(found, Flight):
            target.land(found, answer(1), 0.0)
            target.observe_keep(STORE)
    return {result: target.results[result] - before[result] for result in CacheResult}


@pytest.mark.parametrize(
    ("share", "run", "bypasses"),
    [
        pytest.param(0.0, 5e-3, True, id="nothing repeats, however slow the model"),
        pytest.param(0.03, RUN, True, id="so little repeats that looking up costs more"),
        pytest.param(0.5, RUN, False, id="half repeats"),
        pytest.param(0.95, RUN, False, id="nearly all repeats"),
        pytest.param(0.5, 1e-6, True, id="half repeats, but the model is faster than a look-up"),
        pytest.param(0.03, 5e-3, False, id="little repeats, but the model is slow"),
    ],
)
def test_it_stands_aside_exactly_where_it_does_not_pay(share: float, run: float, *, bypasses: bool) -> None:
    target = cache(max_bytes=1 << 24)
    random = np.random.default_rng(0)
    fresh = np.arange(1000, 21_000)
    values = np.where(random.random(fresh.size) < share, random.integers(0, 20, fresh.size), fresh)
    counted = drive(target, values, run)
    assert (counted[CacheResult.BYPASS] > fresh.size * 0.8) is bypasses
    assert (counted[CacheResult.BYPASS] == 0) is not bypasses


def test_it_comes_back_when_inputs_begin_to_repeat() -> None:
    target = cache()
    drive(target, range(10_000))
    counted = drive(target, range(10_000, 12_000))
    assert counted[CacheResult.BYPASS] > 1900
    assert counted[CacheResult.MISS] > 0
    random = np.random.default_rng(0)
    drive(target, random.integers(0, 500, 40_000))
    counted = drive(target, random.integers(0, 500, 2000))
    assert counted[CacheResult.HIT] > 1900


def test_one_long_pause_of_the_scheduler_does_not_decide() -> None:
    payoff = Payoff()
    payoff.observe_run(1, RUN)
    payoff.observe_keep(STORE)
    for _ in range(3):
        payoff.observe_lookup(LOOKUP)
    payoff.observe_lookup(4e-3)
    for index in range(WINDOW):
        payoff.count_lookup(hit=index % 4 == 0)
    assert not payoff.bypassing


@pytest.mark.parametrize(
    ("per_run", "per_request", "bypasses"),
    [
        pytest.param(80e-6, 1e-6, True, id="a request more costs next to nothing"),
        pytest.param(0.0, 20e-6, False, id="a run costs what its requests cost"),
    ],
)
def test_requests_that_run_together_save_only_what_one_more_would_cost(
    per_run: float, per_request: float, *, bypasses: bool
) -> None:
    payoff = Payoff()
    payoff.observe_lookup(LOOKUP)
    payoff.observe_keep(STORE)
    random = np.random.default_rng(0)
    for index in range(WINDOW):
        requests = int(random.integers(4, 16))
        payoff.observe_run(requests, (per_run + requests * per_request) * float(random.uniform(0.9, 1.1)))
        payoff.count_lookup(hit=index % 2 == 0)
    assert payoff.bypassing is bypasses


def test_it_decides_once_a_window_and_sooner_while_it_stands_aside() -> None:
    payoff = Payoff()
    payoff.observe_lookup(LOOKUP)
    payoff.observe_run(1, RUN)
    for _ in range(WINDOW - 1):
        payoff.count_lookup(hit=False)
    assert not payoff.bypassing
    payoff.count_lookup(hit=False)
    assert payoff.bypassing
    for _ in range(PROBE_WINDOW):
        payoff.count_lookup(hit=True)
    assert not payoff.bypassing
