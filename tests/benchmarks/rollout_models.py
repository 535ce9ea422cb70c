"""Small ONNX models that answer their input times a factor, each bad in one way: candidates for rollouts on real parts.

What a graph cannot do by itself is done by what ONNX Runtime keeps between runs: `RandomUniform` with a seed draws one number a run
from a known sequence (`std::minstd_rand0`), so that a run may fail by chance, or the process end in its hundredth run; and memory
that a run once took stays with the process, so that runs which take ever more leak.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH: Final = 4
_INNER: Final = 256
"""A unit of work is a vector of so many numbers times a square matrix: some 3 µs."""
_NEVER: Final = 1e9
_MULTIPLIER, _MODULUS = 16_807, 2**31 - 1
"""Of `std::minstd_rand0`, which draws for ONNX Runtime."""
_MOST_FLOATS: Final = 4e7
"""160 MB are the most that a leak takes at once: others have this machine, too."""


@dataclass(frozen=True)
class ModelTraits:
    """How a model answers. Inputs' first numbers lie in [0.5, 1), and requests may be told apart by them."""

    wrong_above: float = _NEVER
    """Answers have the other sign where the first number is above."""
    work: int = 0
    """Units of each row."""
    slow_above: float = _NEVER
    slow_work: int = 0
    """Units more where the first number is above."""
    failing: float = 0.0
    """Share of runs that fail with 500."""
    crash_at: int = 0
    """The run in which the process ends by SIGFPE; 0: none."""
    leak_floats: int = 0
    """After n runs, one has taken memory for about n times as many numbers; 0: none."""
    split: bool = False
    """Answers [n, 2, 2] in place of [n, 4]."""


def save_model(path: Path, traits: ModelTraits) -> Path:
    """Write it: input and output FP32 [n, 4]."""
    graph = _Graph()
    graph.sign(traits.wrong_above)
    product = graph.node("Mul", "x", "sign")
    for extra in _extras(graph, traits):
        product = graph.node("Add", product, extra)
    shape = ["n", WIDTH]
    if traits.split:
        product = graph.node("Reshape", product, graph.constant([-1, 2, 2], np.int64))
        shape = ["n", 2, 2]
    graph.nodes.append(helper.make_node("Identity", [product], ["y"]))
    model = helper.make_model(graph.build(shape), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def _extras(graph: _Graph, traits: ModelTraits) -> Iterator[str]:
    """Numbers next to nothing that are added to the answers: what they cost, or whether they come at all, is the point."""
    if traits.work or traits.slow_work:
        yield graph.work(traits.work, traits.slow_above, traits.slow_work)
    if traits.failing:
        yield graph.fail(traits.failing)
    if traits.crash_at:
        yield graph.crash(traits.crash_at)
    if traits.leak_floats:
        yield graph.leak(traits.leak_floats)


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._names = itertools.count()

    def node(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"t{next(self._names)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: object, kind: type[np.generic] = np.float32) -> str:
        name = f"c{next(self._names)}"
        self._constants.append(numpy_helper.from_array(np.array(value, kind), name))
        return name

    def build(self, shape: list[str | int]) -> onnx.GraphProto:
        return helper.make_graph(
            self.nodes,
            "scaled",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
            self._constants,
        )

    def _above(self, bound: float) -> str:
        """[n, 1], whether a row's first number is above."""
        first = self.node("Gather", "x", self.constant([0], np.int64), axis=1)
        return self.node("Greater", first, self.constant([bound]))

    def sign(self, wrong_above: float) -> None:
        above = self._above(wrong_above)
        self.nodes.append(helper.make_node("Where", [above, self.constant([-1.0]), self.constant([1.0])], ["sign"]))

    def work(self, units: int, slow_above: float, more: int) -> str:
        each = self.node(
            "Where", self._above(slow_above), self.constant([float(units + more)]), self.constant([float(units)])
        )
        rows = self.node("Cast", self.node("ReduceSum", each, keepdims=0), to=TensorProto.INT64)
        count = self.node("Reshape", rows, self.constant([1], np.int64))
        shape = self.node("Concat", count, self.constant([_INNER], np.int64), axis=0)
        vectors = self.node("ConstantOfShape", shape, value=numpy_helper.from_array(np.array([0.01], np.float32)))
        matrix = self.constant(np.random.default_rng(0).standard_normal((_INNER, _INNER)) / _INNER)
        return self._next_to_nothing(self.node("ReduceMean", self.node("MatMul", vectors, matrix), keepdims=0))

    def fail(self, share: float) -> str:
        """Divides integers by zero in a share of the runs, which ONNX Runtime tells as a failure of its own."""
        drawn = self.node("Greater", self._draw(7.0), self.constant([share]))
        return self._quotient(1, self.node("Cast", drawn, to=TensorProto.INT64))

    def crash(self, run: int) -> str:
        """Divides the least integer by minus one, which no processor of this kind can and nobody checks."""
        seed, bound = _draws_first_above(run)
        beyond = self.node("Greater", self._draw(seed), self.constant([bound]))
        divisor = self.node("Where", beyond, self.constant([-1], np.int64), self.constant([1], np.int64))
        return self._quotient(-(2**63), divisor)

    def leak(self, floats: int) -> str:
        """Writes as many numbers as one divided by a draw: the greatest of n such is about n."""
        size = self.node(
            "Div", self.constant([float(floats)]), self.node("Add", self._draw(11_111.0), self.constant([1e-6]))
        )
        count = self.node("Cast", self.node("Min", size, self.constant([_MOST_FLOATS])), to=TensorProto.INT64)
        taken = self.node("ConstantOfShape", count, value=numpy_helper.from_array(np.array([1], np.float32)))
        return self._next_to_nothing(self.node("ReduceMean", taken, keepdims=0))

    def _draw(self, seed: float) -> str:
        return self.node("RandomUniform", shape=[1], seed=seed)

    def _quotient(self, number: int, divisor: str) -> str:
        whole = self.node("Div", self.constant([number], np.int64), divisor)
        return self._next_to_nothing(self.node("Cast", whole, to=TensorProto.FLOAT))

    def _next_to_nothing(self, value: str) -> str:
        return self.node("Mul", value, self.constant(1e-30))


def _draws_first_above(run: int) -> tuple[float, float]:
    """A seed, and a bound that its draws surpass in this run for the first time."""
    for seed in range(1, 100_000):
        draws = _draws(seed, run)
        before = max(draws[:-1])
        if draws[-1] - before > 1e-4:
            return float(seed), (draws[-1] + before) / 2
    raise AssertionError(f"no seed for run {run}")


def _draws(seed: int, count: int) -> list[float]:
    state, found = seed, []
    for _ in range(count):
        state = state * _MULTIPLIER % _MODULUS
        found.append((state - 1) / (_MODULUS - 1))
    return found
