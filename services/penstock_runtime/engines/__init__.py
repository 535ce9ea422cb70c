"""What runs a model: a file here for each engine, and `penstock.engines` says what each can do."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import numpy.typing as npt

from penstock.api.conditions import Reason
from penstock.engines import ENGINES
from penstock.errors import Invalid
from penstock.optimization.hardware import Hardware
from penstock.optimization.recipes import EngineName, EngineSettings
from penstock.serving.manifest import Signature

Array = npt.NDArray[Any]


class Engine(Protocol):
    """A loaded model. `run` may be called from any one thread at a time; where `EngineFacts.reentrant`, from several at once."""

    platform: str
    """What the protocol's metadata calls it."""
    signature: Signature

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model once on arrays that fit its signature.

        BF16 tensors are uint16 arrays of their bits; BYTES tensors are object arrays.
        """


class EngineModule(Protocol):
    """What an engine's file has."""

    def why_unavailable(self, name: EngineName, hardware: Hardware) -> str | None:
        """Why it cannot run here, though its library is installed; None where it can."""

    def load(self, entrypoint: Path, settings: EngineSettings, signature: Signature | None) -> Engine:
        """Load a model."""


def load_engine(
    entrypoint: Path, settings: EngineSettings, signature: Signature | None = None, *, trusted: bool = False
) -> Engine:
    """Load a model.

    Args:
        entrypoint: the file.
        settings: what runs it; threads and precision are pinned to them.
        signature: what the model is declared to take and give, for formats that carry no names of tensors (torch's).
            None: what `variant.json` or `manifest.json` beside the file says.
        trusted: whether code in the file may run here: its signature was verified, or this is a process that a search
            isolated for it.

    Raises:
        Invalid: SignatureMissing for what is code and not trusted; ModelInvalid, where the engine cannot load the file;
            EngineUnavailable, where it cannot run here.
    """
    if ENGINES[settings.name].torch and not trusted:
        raise Invalid(
            Reason.SIGNATURE_MISSING,
            f"{entrypoint.name} is a program of torch, and such files can run code as soon as they are opened, so they are "
            "opened only where a search made and signed them: give the deployment an optimizationProfileRef, such as "
            "{name: balanced}, whose run converts it in a sandbox, or export the model to ONNX",
        )
    missing = _missing_package(settings.name)
    if missing is not None:
        raise Invalid(Reason.ENGINE_UNAVAILABLE, f"{settings.name} cannot load {entrypoint.name}: {missing}")
    if not entrypoint.is_file():
        raise Invalid(Reason.MODEL_INVALID, f"{settings.name} cannot load {entrypoint}: there is no such file")
    return _module(settings.name).load(entrypoint, settings, signature)


def why_unavailable(name: EngineName, hardware: Hardware) -> str | None:
    """Why an engine cannot run here, and what would help; None where it can. Imports no torch."""
    return _missing_package(name) or _module(name).why_unavailable(name, hardware)


def options_of(settings: EngineSettings, known: Mapping[str, str]) -> dict[str, str]:
    """An engine's options over their defaults.

    Raises:
        Invalid: ModelInvalid, for an option that the engine does not know.
    """
    unknown = sorted(set(settings.options) - set(known))
    if unknown:
        raise Invalid(
            Reason.MODEL_INVALID,
            f"{settings.name} has no option {unknown[0]!r}; it has {', '.join(sorted(known)) or 'none'}",
        )
    return {**known, **settings.options}


def first_line(error: BaseException) -> str:
    """What an engine's error says first."""
    text = str(error).strip()
    return text.splitlines()[0][:500] if text else type(error).__name__


def _missing_package(name: EngineName) -> str | None:
    facts = ENGINES[name]
    if importlib.util.find_spec(facts.package) is not None:
        return None
    return f"{facts.package} is not installed here: install {facts.install}"


def _module(name: EngineName) -> EngineModule:
    return cast(EngineModule, importlib.import_module(f"{__name__}.{ENGINES[name].module}"))
