"""What a `.pt2` must not hold, found before torch looks at it. That it is signed, or in a sandbox, comes first."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.telling import telling

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.optimization.recipes import EngineName, EngineSettings
from penstock_runtime.engines import load_engine
from penstock_runtime.engines.pt2_archive import refuse_code

HINT = {"hint": {"as_int": 3}}
SYMBOL = "Symbol('s77', positive=True, integer=True)"


def tensors(pickled: bytes = pickle.dumps({}, protocol=2)) -> bytes:
    """As `torch.save` writes them."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
    return body.getvalue()


def program(*expressions: Any) -> bytes:
    values = [{"as_expr": {"expr_str": each, **HINT}} for each in expressions]
    return json.dumps({"graph_module": {"tensor_values": {"x": {"sizes": values}}}}).encode()


GOOD: Mapping[str, bytes] = {
    "model/archive_format": b"pt2",
    "model/archive_version": b"0",
    "model/byteorder": b"little",
    "model/models/model.json": program(
        SYMBOL, f"Mul(Integer(2), {SYMBOL})", f"FloorDiv({SYMBOL}, Integer(2)) + 1", "s0*3"
    ),
    "model/data/weights/model_weights_config.json": b'{"config": {"w": {"path_name": "weight_0", "use_pickle": false}}}',
    "model/data/weights/weight_0": b"1234",
    "model/data/sample_inputs/model.pt": tensors(),
}


class Boom:
    def __reduce__(self) -> Any:
        return print, ("ran",)


def with_expression(text: Any) -> Mapping[str, bytes]:
    return {**GOOD, "model/models/model.json": program(text)}


def saved(path: Path, files: Mapping[str, bytes], *more: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, body in (*files.items(), *more):
            archive.writestr(name, body)
    return path


def test_an_ordinary_one_passes(tmp_path: Path) -> None:
    refuse_code(saved(tmp_path / "m.pt2", GOOD))


BAD: list[tuple[str, Callable[[], Mapping[str, bytes]], str]] = [
    ("an expression that imports", lambda: with_expression("__import__('os').system('true')"), "no arithmetic"),
    ("one that reaches an attribute", lambda: with_expression("Integer(1).__class__"), "no arithmetic"),
    ("one that calls what is not of shapes", lambda: with_expression("exec('s0')"), "no arithmetic"),
    ("one with a name of a builtin", lambda: with_expression("open('s0')"), "no arithmetic"),
    ("one in a symbol's name", lambda: with_expression("Symbol('s0 + x()')"), "no arithmetic"),
    ("one over two lines", lambda: with_expression("s0\nprint(1)"), "no arithmetic"),
    ("one that is no text", lambda: with_expression(["s0"]), "no arithmetic"),
    (
        "example inputs: a pickle before a harmless archive",
        lambda: {**GOOD, "model/data/sample_inputs/model.pt": pickle.dumps(Boom(), protocol=2) + tensors()},
        "no archive",
    ),
    (
        "example inputs that name a function",
        lambda: {**GOOD, "model/data/sample_inputs/model.pt": tensors(pickle.dumps(Boom(), protocol=2))},
        "pickle",
    ),
    (
        "the archive of torch before 2.8",
        lambda: {"version": b"8.20", "serialized_exported_program.json": program(), "serialized_state_dict.json": b""},
        "several folders",
    ),
    (
        "the older files within one of today's",
        lambda: {**GOOD, "model/serialized_state_dict.json": pickle.dumps(Boom(), protocol=2)},
        "torch 2.8",
    ),
    ("no word of its form", lambda: {k: v for k, v in GOOD.items() if "format" not in k}, "torch 2.8"),
    ("the same file in capitals", lambda: {**GOOD, "model/MODELS/model.json": program()}, "file twice"),
    ("a file beside its folder", lambda: {**GOOD, "other/models/model.json": program()}, "several folders"),
    ("an object of a class", lambda: {**GOOD, "model/data/constants/custom_obj_0": b"x"}, "object class"),
    ("machine code", lambda: {**GOOD, "model/data/aotinductor/model/model.so": b"\x7fELF"}, "machine code"),
    (
        "a pickled weight",
        lambda: {**GOOD, "model/data/weights/model_weights_config.json": b'{"config": {"w": {"use_pickle": true}}}'},
        "pickled tensors",
    ),
]


@pytest.mark.parametrize(("files", "facts"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_one_that_would_run_code_is_refused(
    tmp_path: Path, files: Callable[[], Mapping[str, bytes]], facts: str
) -> None:
    with pytest.raises(Invalid, match=telling(facts)) as caught:
        refuse_code(saved(tmp_path / "m.pt2", files()))
    assert caught.value.reason == Reason.MODEL_INVALID


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_that_names_a_file_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=telling("file twice")):
        refuse_code(saved(tmp_path / "m.pt2", GOOD, ("model/models/model.json", program("s0"))))


@pytest.mark.parametrize("name", ["m.pt2", "m.pt", "m.safetensors"])
@pytest.mark.parametrize("engine", [EngineName.TORCH_EAGER, EngineName.TORCH_COMPILE, EngineName.TORCH_EXPORT])
def test_whatever_is_in_it_nobody_opens_it_who_does_not_trust_it(tmp_path: Path, name: str, engine: EngineName) -> None:
    with pytest.raises(Invalid, match=telling("signed")) as caught:
        load_engine(saved(tmp_path / name, GOOD), EngineSettings(name=engine))
    assert caught.value.reason == Reason.SIGNATURE_MISSING
