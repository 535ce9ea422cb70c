"""From a model as its owner has it to a source folder: the forms that steps need, and `source.json`.

parent   `prepare`: tells the format, starts the child, reads what it left
child    `python -m penstock_optimizer.building.source`: opens the model, which may run code of its owner
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter

from penstock.api.conditions import Reason
from penstock.engines import FORMATS
from penstock.errors import Invalid
from penstock.models import Frozen
from penstock.optimization.variants import SOURCE_FILE, PreparedSource, SourceRequest
from penstock.serving.manifest import MANIFEST_NAME, ModelFormat, ModelManifest, Signature
from penstock_optimizer.sandbox import run_module
from penstock_optimizer.sources import open_model
from penstock_optimizer.sources.detect import detect, locate
from penstock_optimizer.sources.examples import read_examples
from penstock_optimizer.sources.opening import EXPORTED_FILE, ONNX_FILE, WEIGHTS_FILE, Opening
from penstock_runtime.atomic import write_atomically
from penstock_runtime.digests import serving_files
from penstock_runtime.files import describe_folder, sha256_of

PREPARE_FAILED: Final = "PrepareFailed"
_OUTCOME: Final = "outcome.json"
_REQUEST: Final = "request.json"
_TIMEOUT: Final = 1800.0
_FP32_BYTES: Final = 4
_EDITION: Final = 2
"""Goes up with what a prepared source says: those of former ones are made anew."""


class _Job(Frozen):
    """What the child is told: a line of JSON."""

    request: SourceRequest
    format: ModelFormat
    entry: str
    data: str | None
    known: str | None
    """Folder with an earlier result, which stands where neither model nor request changed."""
    output: str
    work: str
    edition: int = _EDITION


class _Prepared(Frozen):
    type: Literal["prepared"] = "prepared"
    source: PreparedSource


class _Unchanged(Frozen):
    type: Literal["unchanged"] = "unchanged"


class _Refused(Frozen):
    type: Literal["refused"] = "refused"
    reason: str
    message: str


_Outcome = Annotated[_Prepared | _Unchanged | _Refused, Field(discriminator="type")]
_OUTCOMES: TypeAdapter[_Prepared | _Unchanged | _Refused] = TypeAdapter(_Outcome)


def prepare(
    request: SourceRequest,
    output: Path,
    *,
    data: Path | None,
    sandbox: bool,
    hidden: Sequence[Path] = (),
) -> PreparedSource:
    """Make the source folder of a model. One that is there is taken as it is, where the model did not change.

    Args:
        request: the model, on this machine.
        output: the folder to make. It appears whole.
        data: an `.npz` file or a folder of them, for the example by which a torch module is captured.
        sandbox: whether the child runs isolated. It always does where the model is code, unless this is False.
        hidden: folders and files that the model's code must not see.

    Returns:
        What is in the folder.

    Raises:
        Invalid: what is wrong with the model, and what to do; PickleRefused for a pickle.
    """
    entry = locate(Path(request.path)).absolute()
    format_ = _format(request, entry)
    output.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".preparing-", dir=output.parent.absolute()))
    try:
        job = _Job(
            request=request.model_copy(update={"python_path": tuple(os.path.abspath(p) for p in request.python_path)}),  # noqa: PTH100 -- the child stands elsewhere; links are left alone
            format=format_,
            entry=str(entry),
            data=None if data is None else str(data.absolute()),
            known=str(output.absolute()) if (output / SOURCE_FILE).is_file() else None,
            output=str(work / "source"),
            work=str(work),
        )
        code = request.import_path is not None or FORMATS[format_].code
        ended = run_module(
            "penstock_optimizer.building.source", job.model_dump_json(), home=work, isolated=_should_isolate(code=code, asked=sandbox),
            timeout=_TIMEOUT, threads=min(2, os.cpu_count() or 1), hidden=hidden,
        )  # fmt: skip
        if not (work / _OUTCOME).is_file():
            raise Invalid(PREPARE_FAILED, f"{entry.name} could not be opened: {ended.reason}")
        return _take_outcome(_OUTCOMES.validate_json((work / _OUTCOME).read_bytes()), work / "source", output)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _should_isolate(*, code: bool, asked: bool) -> bool:
    """Isolated where it is asked for; without code to fear, only where the machine can."""
    from penstock_optimizer.sandbox import why_unavailable  # noqa: PLC0415 -- tried only where it is asked for

    return asked and (code or why_unavailable() is None)


def _format(request: SourceRequest, entry: Path) -> ModelFormat:
    found = detect(entry)
    if request.format is not None and request.format is not found:
        raise Invalid(
            Reason.MODEL_INVALID, f"{entry.name} is {found}, but {request.format} was given as the model's format"
        )
    if request.import_path is not None and found is not ModelFormat.SAFETENSORS:
        raise Invalid(
            Reason.MODEL_INVALID,
            f"{entry.name} is {found}, which holds the whole model: leave out the import path {request.import_path}, "
            f"which goes with {ModelFormat.SAFETENSORS} only",
        )
    return found


def _take_outcome(outcome: _Prepared | _Unchanged | _Refused, made: Path, output: Path) -> PreparedSource:
    match outcome:
        case _Refused():
            raise Invalid(outcome.reason, outcome.message)
        case _Unchanged():
            return read_source(output)
        case _Prepared():
            if output.exists():
                shutil.rmtree(output)
            made.rename(output)
            return outcome.source


def read_source(folder: Path) -> PreparedSource:
    """What is in a source folder."""
    return PreparedSource.model_validate_json((folder / SOURCE_FILE).read_bytes())


def main() -> None:
    """The child: read a job, prepare, and leave the outcome in the work folder."""
    job = _Job.model_validate_json(sys.stdin.read())
    try:
        outcome = _prepare_here(job)
    except Invalid as error:
        outcome = _Refused(reason=error.reason, message=error.message)
    target = Path(job.work) / _OUTCOME
    write_atomically(target, outcome.model_dump_json().encode())


def _prepare_here(job: _Job) -> _Prepared | _Unchanged | _Refused:
    entry, output = Path(job.entry), Path(job.output)
    digest = _digest(job, entry)
    asked = job.model_dump_json(include={"request", "format", "entry", "data", "edition"})
    if job.known is not None and _stands(Path(job.known), digest, asked):
        return _Unchanged()
    output.mkdir()
    examples = read_examples(None if job.data is None else Path(job.data), job.request.example_shapes)
    opened = open_model(job.format, Opening(job.request, entry, examples, Path(job.work), output))
    source = _describe(job, digest, opened.parameters, output)
    (output / _REQUEST).write_text(asked, encoding="utf-8")
    (output / SOURCE_FILE).write_text(source.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return _Prepared(source=source)


def _stands(known: Path, digest: str, asked: str) -> bool:
    """Whether an earlier result is of the same model and the same request, and all of it is there."""
    if not (known / _REQUEST).is_file() or (known / _REQUEST).read_text(encoding="utf-8") != asked:
        return False
    source = read_source(known)
    files = {name: known / name for name in source.files}
    return source.digest == digest and all(
        path.is_file() and path.stat().st_size == source.files[name].size_bytes for name, path in files.items()
    )


def _describe(job: _Job, digest: str, parameters: int, output: Path) -> PreparedSource:
    from penstock_optimizer.sources.onnx import signature_of  # noqa: PLC0415 -- the parent needs no onnx

    request = job.request
    signature = signature_of(output / ONNX_FILE)
    inputs = [spec.name for spec in signature.inputs]
    if unknown := sorted(request.example_shapes.keys() - set(inputs)):
        raise Invalid(
            Reason.MODEL_INVALID, f"a shape is given for '{unknown[0]}', but the model's inputs are {', '.join(inputs)}"
        )
    vocabulary, unsuited = _find_vocabulary(job, signature, output / ONNX_FILE)
    weights = WEIGHTS_FILE if (output / WEIGHTS_FILE).is_file() else None
    return PreparedSource(
        name=_name(Path(request.path), Path(job.entry)),
        digest=digest,
        format=job.format,
        signature=signature,
        onnx=ONNX_FILE,
        exported=EXPORTED_FILE if (output / EXPORTED_FILE).is_file() else None,
        weights=weights,
        import_path=request.import_path if weights else None,
        python_path=request.python_path,
        student_import_path=request.student_import_path,
        parameters=parameters,
        size_bytes=parameters * _FP32_BYTES,
        vocabulary=vocabulary,
        unsuited=unsuited,
        files=describe_folder(output),
    )


def _find_vocabulary(job: _Job, signature: Signature, path: Path) -> tuple[dict[str, int], str | None]:
    """What is to be known for samples that are made up; nothing where there is data."""
    if job.data is not None:
        return {}, None
    from penstock_optimizer.sources.vocabulary import find_limits  # noqa: PLC0415 -- the parent needs no onnx

    return find_limits(path, signature, job.request.example_shapes)


def _name(path: Path, entry: Path) -> str:
    if path.is_dir() and (path / MANIFEST_NAME).is_file():
        return ModelManifest.model_validate_json((path / MANIFEST_NAME).read_bytes()).name
    return path.name if path.is_dir() else entry.stem


def _digest(job: _Job, entry: Path) -> str:
    """Over the model's files, the import path, and the code that it names where that lies in the given folders."""
    digest = hashlib.sha256()
    for part in (job.format, job.request.import_path or ""):
        digest.update(f"{part}\0".encode())
    beside = (entry.parent / name for name in serving_files(entry, job.format))
    for path in (entry, *beside, *_code(job.request)):
        digest.update(f"{path.name if path != entry else ''}\0{sha256_of(path)}\0".encode())
    return f"sha256:{digest.hexdigest()}"


def _code(request: SourceRequest) -> tuple[Path, ...]:
    """Python files of the module that the import path names, or of its package, in the first folder that has it."""
    if request.import_path is None:
        return ()
    module = request.import_path.partition(":")[0]
    top, _, _ = module.partition(".")
    for folder in request.python_path:
        single = Path(folder) / f"{top}.py"
        if single.is_file():
            return (single,)
        exact = Path(folder, *module.split(".")).with_suffix(".py")
        package = exact.parent if exact.is_file() else Path(folder) / top
        if package.is_dir():
            return tuple(sorted(package.rglob("*.py")))
    return ()


if __name__ == "__main__":
    main()
