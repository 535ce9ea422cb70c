"""Where the machine gives no namespaces, nothing that is code is opened: nothing stands in for the sandbox."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.telling import telling

from penstock.engines import FORMATS, formats_where
from penstock.errors import Invalid
from penstock.optimization.recipes import EngineName, EngineSettings, Recipe
from penstock.optimization.variants import Variant
from penstock.serving.manifest import ModelFormat, Signature
from penstock_optimizer import sandbox
from penstock_optimizer.building import source as prepare
from penstock_optimizer.measure.channel import Channel
from penstock_optimizer.measure.variant import is_code


@pytest.fixture(autouse=True)
def nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "why_unavailable", lambda: "this machine gives no namespaces")


@pytest.mark.parametrize("model_format", formats_where(lambda each: each.optimizable))
def test_every_format_but_onnx_and_bare_weights_is_code(model_format: ModelFormat) -> None:
    data = {
        ModelFormat.ONNX,
        ModelFormat.SAFETENSORS,
    }  # safetensors become code by their import path, which is looked at too
    assert FORMATS[model_format].code is (model_format not in data)


def test_what_is_code_asks_for_the_sandbox_that_there_is_not() -> None:
    assert prepare._should_isolate(code=True, asked=True)
    assert not prepare._should_isolate(code=False, asked=True), "data is opened without one"
    assert not prepare._should_isolate(code=True, asked=False), "whoever says --no-sandbox has one around all of it"


def test_a_module_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=telling(sandbox.why_unavailable() or "", "--no-sandbox")) as caught:
        sandbox.run_module("json.tool", "{}", home=tmp_path, isolated=True, timeout=60)
    assert caught.value.reason == sandbox.SANDBOX_UNAVAILABLE


def test_a_process_that_measures_is_refused_too() -> None:
    with pytest.raises(Invalid, match=telling(sandbox.why_unavailable() or "")):
        Channel("json.tool", isolated=True)


@pytest.mark.parametrize("name", EngineName)
def test_a_variant_on_torch_is_code(name: EngineName) -> None:
    engine = EngineSettings(name=name)
    variant = Variant.model_construct(
        engine=engine, recipe=Recipe(engine=engine), signature=Signature(inputs=(), outputs=())
    )
    assert is_code(variant) is name.startswith("Torch")
