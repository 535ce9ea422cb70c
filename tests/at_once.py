"""Tests of a module that wait most of the time, run at once: what waits together computes once meanwhile, Ray and an API server above all.

    AT_ONCE = AtOnce()

    @pytest.fixture(scope="module")
    def begun(request, …):
        with AT_ONCE.begin(request, lambda stack: {"tmp_path": …}) as begun:
            yield begun

    @AT_ONCE
    def test_one(tmp_path): …

The first of them begins all that are selected, each in a thread; each test waits for its own and fails as that did.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest


class AtOnce:
    """Such tests of a module. What they ask for by name, `begin` gives them."""

    def __init__(self) -> None:
        self._bodies: dict[str, Callable[..., None]] = {}

    def __call__(self, body: Callable[..., None]) -> Callable[[Mapping[str, Future[None]]], None]:
        """Make a test of one that says how it went."""

        def test(begun: Mapping[str, Future[None]]) -> None:
            begun[name].result()

        name = body.__name__
        self._bodies[name] = body
        test.__name__, test.__qualname__, test.__module__ = name, name, body.__module__
        return test

    @contextmanager
    def begin(
        self, request: pytest.FixtureRequest, given: Callable[[ExitStack], Mapping[str, Any]]
    ) -> Iterator[dict[str, Future[None]]]:
        """Begin those that are to run, and wait for all in the end.

        Args:
            request: of the fixture that does.
            given: for each of them, what it may ask for by name; what is entered on the stack ends with it.
        """

        def run(body: Callable[..., None]) -> None:
            with ExitStack() as stack:
                values = given(stack)
                body(**{name: values[name] for name in inspect.signature(body).parameters})

        selected = {item.name for item in request.session.items if item.path == request.path}
        with ThreadPoolExecutor(len(self._bodies)) as pool:
            yield {name: pool.submit(run, body) for name, body in self._bodies.items() if name in selected}
