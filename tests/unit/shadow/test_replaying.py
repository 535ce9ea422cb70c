from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from penstock.protocol.datatypes import Array
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_runtime.joining.making import RequestMaker
from penstock_serving.replica.shadow.replaying import MOST_RECORDED, MOST_RECORDED_BYTES, ReplayedInputs, size_of

Takes = Callable[[Mapping[str, Array]], bool]


def signature(*inputs: tuple[DataType, tuple[int, ...]]) -> Signature:
    specs = [TensorSpec(name=f"x{number}", datatype=kind, shape=shape) for number, (kind, shape) in enumerate(inputs)]
    return Signature(inputs=tuple(specs), outputs=())


def maker(of: Signature, *, batched: bool = True, checks_ids: bool = False) -> RequestMaker:
    return RequestMaker(
        of, {}, dict.fromkeys((spec.name for spec in of.inputs), 0) if batched else {}, checks_ids=checks_ids
    )


FLOATS = signature((DataType.FP32, (-1, 4)))
IDS = signature((DataType.INT64, (-1, -1)), (DataType.INT64, (-1, -1)))
TEXTS = signature((DataType.BYTES, (-1, 1)))


@pytest.mark.parametrize(
    ("made", "takes"),
    [
        pytest.param(maker(FLOATS), lambda _: True, id="any"),
        pytest.param(maker(IDS), lambda inputs: inputs["x0"].shape[1] == 64, id="one length"),
        pytest.param(maker(IDS), lambda inputs: inputs["x0"].shape == inputs["x1"].shape, id="equal lengths"),
        pytest.param(maker(IDS, checks_ids=True), lambda inputs: inputs["x0"].max() < 3, id="a small table"),
        pytest.param(maker(TEXTS), lambda inputs: all(each.isdigit() for each in inputs["x0"].ravel()), id="numbers as text"),
        pytest.param(maker(IDS, batched=False), lambda inputs: inputs["x0"].shape == (3, 3), id="no axis that counts rows"),
    ],
)  # fmt: skip
def test_requests_are_made_as_the_model_takes_them(made: RequestMaker, takes: Takes) -> None:
    tried = 0
    while not takes(made.make()):
        made.observe(took=False)
        tried += 1
        assert not made.exhausted
    made.observe(took=True)
    made.observe(took=False)
    assert not made.exhausted
    assert sum(takes(made.make()) for _ in range(50)) >= 45
    assert tried < 40


def test_a_model_that_takes_nothing_is_let_be() -> None:
    made = ReplayedInputs(maker(FLOATS), random.Random(1))
    shown = 0
    while made.next_inputs() is not None:
        made.observe(took=False)
        shown += 1
        assert shown < 100


def test_made_requests_differ_and_have_several_numbers_of_rows() -> None:
    made = maker(FLOATS)
    requests = [made.make()["x0"] for _ in range(60)]
    assert len({each.tobytes() for each in requests}) == len(requests)
    assert {len(each) for each in requests} == {1, 2, 3, 4}


def recorded(number: int, size: int = 4) -> dict[str, Array]:
    return {"x0": np.full((1, size), number, np.float32)}


def test_every_second_turn_is_one_that_clients_sent_the_oldest_first_and_the_others_are_made() -> None:
    replayed = ReplayedInputs(maker(FLOATS), random.Random(1))
    for number in range(3):
        replayed.record(recorded(number))
    shown = [each for _ in range(12) if (each := replayed.next_inputs()) is not None]
    assert [each.made for each in shown] == [True, False] * 6
    assert [each.inputs["x0"][0, 0] for each in shown if not each.made] == [0, 1, 2] * 2
    assert len({each.inputs["x0"].tobytes() for each in shown if each.made}) == 6


def test_samples_that_were_supplied_come_first_each_once_beside_what_clients_sent() -> None:
    replayed = ReplayedInputs(maker(FLOATS), random.Random(1))
    replayed.supply((recorded(number) for number in range(3)), enough=False)
    alone = [replayed.next_inputs() for _ in range(2)]
    assert [(each.inputs["x0"][0, 0], each.made, each.supplied) for each in alone if each] == [
        (0, True, True),
        (1, True, True),
    ]
    replayed.record(recorded(9))
    shown = [each for _ in range(6) if (each := replayed.next_inputs()) is not None]
    assert [each.made for each in shown] == [True, False] * 3
    assert [each.supplied for each in shown] == [True, *[False] * 5]
    assert all(each.compared for each in shown)


def test_where_samples_are_enough_answers_to_them_alone_count_and_they_come_again_by_chance() -> None:
    replayed = ReplayedInputs(maker(FLOATS), random.Random(1))
    replayed.supply(map(recorded, range(3)), enough=True)
    shown = [each for _ in range(203) if (each := replayed.next_inputs()) is not None]
    assert [(each.inputs["x0"][0, 0], each.again) for each in shown[:3]] == [(0, False), (1, False), (2, False)]
    again = [each for each in shown[3:] if each.supplied]
    assert {each.inputs["x0"][0, 0] for each in again} == {0, 1, 2}
    assert all(each.again and each.compared for each in again)
    assert 60 < len(again) < 140
    assert not any(each.compared for each in shown[3:] if not each.supplied)
    replayed.supply([], enough=False)
    following = replayed.next_inputs()
    assert following is not None
    assert (following.supplied, following.compared) == (False, True)


def test_of_a_model_that_takes_nothing_made_only_what_clients_sent_is_shown() -> None:
    replayed = ReplayedInputs(maker(FLOATS), random.Random(1))
    replayed.record(recorded(7))
    for _ in range(200):
        found = replayed.next_inputs()
        assert found is not None
        replayed.observe(took=found.inputs["x0"][0, 0] == 7)
    assert [each.inputs["x0"][0, 0] for _ in range(40) if (each := replayed.next_inputs())] == [7] * 40


@pytest.mark.parametrize(
    ("sizes", "kept"),
    [
        pytest.param([4] * (MOST_RECORDED + 9), list(range(9, MOST_RECORDED + 9)), id="the last"),
        pytest.param([MOST_RECORDED_BYTES // 16] * 10, [6, 7, 8, 9], id="as many as are within the bound"),
        pytest.param([4, MOST_RECORDED_BYTES, 4], [0, 2], id="none that is larger than all may be"),
    ],
)
def test_what_is_kept_of_clients_inputs(sizes: list[int], kept: list[int]) -> None:
    replayed = ReplayedInputs(maker(FLOATS), random.Random(1))
    for number, size in enumerate(sizes):
        replayed.record(recorded(number, size))
    shown = [each for _ in range(2 * len(kept)) if (each := replayed.next_inputs()) is not None and not each.made]
    assert [each.inputs["x0"][0, 0] for each in shown] == kept


def test_texts_count_with_their_letters() -> None:
    texts = np.array([b"abc", b"defg"], dtype=object)
    assert size_of({"x": texts, "y": np.zeros(2)}) == 2 * 8 + 7 + 16
