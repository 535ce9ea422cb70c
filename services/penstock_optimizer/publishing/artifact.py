"""The signed, content-addressed artifact of an accepted variant, and the report of every search."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Final

from penstock.errors import Invalid
from penstock.optimization.fitting import requirement_of
from penstock.optimization.progress import OptimizationRequest
from penstock.optimization.recipes import canonical_json
from penstock.optimization.report import Report
from penstock.optimization.variants import VARIANT_FILE, DataSplits, PreparedSource, Variant
from penstock.serving.joining import Joining
from penstock.serving.manifest import MANIFEST_NAME, Capacity, ModelFile, ModelManifest, Optimization
from penstock_optimizer.report.page import render
from penstock_runtime.files import describe_file, describe_folder
from penstock_runtime.signing import sign
from penstock_runtime.storage import Store

REPORT_JSON: Final = "report.json"
REPORT_PAGE: Final = "report.html"
_ARTIFACTS: Final = "artifacts"
_REPORTS: Final = "reports"


def publish(
    variant_folder: Path,
    variant: Variant,
    *,
    report: Report,
    request: OptimizationRequest,
    source: PreparedSource,
    data: DataSplits,
    capacity: Capacity | None,
) -> tuple[str, str]:
    """Put the variant into the store as a model folder that a replica can check and serve.

    It holds the variant's files, the report, `manifest.json` with the SHA-256 of each, and a signature over all of it.

    Args:
        variant_folder: where the variant was built.
        variant: what lies there.
        report: of the search that chose it.
        request: names the store, the model and the signing key.
        source: what the variant was made from.
        data: what it was calibrated and tested on.
        capacity: what one replica was measured to carry.

    Returns:
        The artifact's URI, and its digest: `sha256:` of the manifest's bytes.

    Raises:
        Invalid: a file of the variant is missing or is not what was built; the key cannot sign.
        Unavailable: the store does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-artifact-") as scratch:
        folder = Path(scratch) / "artifact"
        folder.mkdir()
        for name, expected in variant.files.items():
            if name != VARIANT_FILE:
                _copy(variant_folder / name, folder / name, expected)
        _write_report(report, folder)
        manifest = _manifest(
            folder, variant, report=report, request=request, source=source, data=data, capacity=capacity
        )
        body = (manifest.model_dump_json(indent=2) + "\n").encode()
        (folder / MANIFEST_NAME).write_bytes(body)
        sign(folder, Path(request.signing_key))
        digest = hashlib.sha256(body).hexdigest()
        return Store(request.store).put_folder(folder, f"{_ARTIFACTS}/sha256-{digest}"), f"sha256:{digest}"


def publish_report(report: Report, request: OptimizationRequest) -> str:
    """Put `report.json` and `report.html` into the store, whatever the verdict; the folder's URI.

    Raises:
        Unavailable: the store does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-report-") as scratch:
        folder = Path(scratch) / "report"
        folder.mkdir()
        _write_report(report, folder)
        digest = hashlib.sha256((folder / REPORT_JSON).read_bytes()).hexdigest()
        return Store(request.store).put_folder(folder, f"{_REPORTS}/sha256-{digest}")


def _write_report(report: Report, folder: Path) -> None:
    (folder / REPORT_JSON).write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / REPORT_PAGE).write_text(render(report), encoding="utf-8")


def _copy(source: Path, target: Path, expected: ModelFile) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise Invalid("VariantIncomplete", f"{source} cannot be copied: {error.strerror}; build it again") from error
    found = describe_file(target)
    if found != expected:
        raise Invalid(
            "VariantChanged",
            f"{source} has SHA-256 {found.sha256} and {found.size_bytes} bytes, but was built with {expected.sha256} and "
            f"{expected.size_bytes}: remove the variant's folder, so that it is built again",
        )


def _manifest(
    folder: Path,
    variant: Variant,
    *,
    report: Report,
    request: OptimizationRequest,
    source: PreparedSource,
    data: DataSplits,
    capacity: Capacity | None,
) -> ModelManifest:
    chosen = report.candidate(variant.recipe.key)
    company = chosen.accuracy.company if chosen is not None and chosen.accuracy is not None else None
    proved = chosen.load.joining if chosen is not None and chosen.load is not None else None
    return ModelManifest(
        name=request.name,
        format=variant.format,
        entrypoint=variant.entrypoint,
        signature=variant.signature,
        files=describe_folder(folder),
        engine=variant.engine,
        joining=Joining() if company is not None and company.problem is not None else proved,
        optimization=Optimization(
            profile=request.profile,
            profile_digest=f"sha256:{hashlib.sha256(canonical_json(request.spec.model_dump(mode='json'))).hexdigest()}",
            source_digest=source.digest,
            calibration_digest=data.digest,
            recipe=variant.recipe,
            library_versions=report.library_versions,
            hardware=report.hardware,
            requires=requirement_of(report.hardware, variant.engine, variant.weight_precision),
            capacity=capacity,
            company=company,
            speedups={name: ratio.value for name, ratio in chosen.speedups.items()} if chosen else {},
            report=REPORT_PAGE,
            namespace=request.identity.namespace if request.identity is not None else None,
            run=request.identity.run if request.identity is not None else None,
        ),
    )
