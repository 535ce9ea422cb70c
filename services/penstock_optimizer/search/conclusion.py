"""The end of a search: its report, the artifact where something was chosen, and both in the store.

What was said once stays said: report and result are kept beside the ledger, and the same search again only puts into the
store what is missing there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from penstock.optimization.measurements import OperatorShare
from penstock.optimization.progress import RunResult
from penstock.optimization.recipes import Recipe
from penstock.optimization.report import Report, SearchVerdict
from penstock.optimization.variants import VARIANT_FILE
from penstock.serving.manifest import MANIFEST_NAME, ModelFormat
from penstock_optimizer.measure.variant import read_variant
from penstock_optimizer.profiling.operators import operators
from penstock_optimizer.publishing.artifact import REPORT_JSON, publish, publish_report
from penstock_optimizer.publishing.signing_key import secrets_of
from penstock_optimizer.search.constraints import judgement_in_words
from penstock_optimizer.search.keys import digest_of
from penstock_optimizer.search.ledger import Ledger
from penstock_optimizer.search.preparation import Prepared
from penstock_optimizer.search.standing import Standing
from penstock_optimizer.search.verdict import Conclusion, conclude, with_operators
from penstock_optimizer.search.workspace import SearchFolder
from penstock_runtime.atomic import write_atomically
from penstock_runtime.signing import public_key
from penstock_runtime.storage import Store

_NOT_FOR_HERE: Final = "the model itself serves on"


@dataclass(frozen=True)
class Ending:
    """Reports and publishes one search."""

    prepared: Prepared
    folder: SearchFolder
    ledger: Ledger

    def result(self, *, reused: bool) -> RunResult:
        """The result, with artifact and report in the store.

        Args:
            reused: whether no trial was run for it now.

        Raises:
            Invalid: the key cannot sign, or a variant is not what was built.
            Unavailable: the store does not answer.
        """
        known = self._read_result()
        if known is not None and self._is_in_store(known):
            return known.model_copy(update={"reused": reused})
        found = conclude(self.prepared.plan, self.ledger.trials)
        report = self._report(found)
        result = self._publish(found, report, reused=reused)
        write_atomically(self._file("result"), result.model_dump_json(indent=1).encode())
        return result

    def _publish(self, found: Conclusion, report: Report, *, reused: bool) -> RunResult:
        prepared = self.prepared
        report_uri = publish_report(report, prepared.request)
        artifact: tuple[str, str] | None = None
        variant = None
        served = found.chosen or self._fallback_recipe()
        if served is not None:
            folder = self.folder.variant(served.key)
            variant = read_variant(folder)
            artifact = publish(
                folder,
                variant,
                report=report,
                request=prepared.request,
                source=prepared.source,
                data=prepared.data,
                capacity=found.capacity,
            )
        return RunResult(
            verdict=report.verdict,
            summary=report.summary,
            figures=found.figures,
            judged=tuple(judgement_in_words(each) for each in report.judgements),
            recipe=found.chosen.label if found.chosen is not None else None,
            artifact_uri=artifact[0] if artifact else None,
            artifact_digest=artifact[1] if artifact else None,
            artifact_format=variant.format if variant is not None else None,
            capacity=found.capacity,
            report_uri=report_uri,
            reused=reused,
            trials=len(self.ledger.trials),
            source_digest=prepared.source.digest,
            model_digest=prepared.model_digest,
            hardware=digest_of(prepared.hardware.model_dump(mode="json")),
        )

    def _fallback_recipe(self) -> Recipe | None:
        """What serves a model that is not served as it is, where nothing better was found: its ONNX, as the baseline was built."""
        plain = Standing(self.prepared.plan, self.ledger.trials).plain
        built = (self.folder.variant(plain.key) / VARIANT_FILE).is_file()
        return plain if self.prepared.source.format is not ModelFormat.ONNX and built else None

    def _report(self, found: Conclusion) -> Report:
        kept = self._file("report")
        if kept.is_file():
            return Report.model_validate_json(kept.read_bytes())
        report = self._assemble_report(found)
        write_atomically(kept, report.model_dump_json(indent=1).encode())
        return report

    def _assemble_report(self, found: Conclusion) -> Report:
        prepared = self.prepared
        request, source, data = prepared.request, prepared.source, prepared.data
        wrong = prepared.misplaced
        shares, problems = self._operators(found)
        return Report(
            model=request.name,
            source_digest=source.digest,
            source_size_bytes=source.size_bytes,
            parameters=source.parameters,
            profile=request.profile,
            profile_spec=request.spec,
            data_digest=data.digest,
            synthetic_data=data.synthetic,
            samples=data.samples,
            verdict=SearchVerdict.REJECTED if wrong else found.verdict,
            summary=f"{wrong} So {_NOT_FOR_HERE}." if wrong else found.summary,
            chosen=found.chosen.key if found.chosen is not None else None,
            candidates=with_operators(found.candidates, shares),
            controls=found.controls,
            judgements=found.judgements,
            accuracy_controls=found.accuracy_controls,
            capacity=found.capacity,
            hardware=prepared.hardware,
            library_versions=prepared.versions,
            command=request.command,
            started_at=self._start_time(),
            seconds=self.ledger.seconds,
            budget_seconds=prepared.plan.budget_seconds,
            warnings=(*data.notes, *found.warnings, *problems),
        )

    def _operators(self, found: Conclusion) -> tuple[dict[str, tuple[OperatorShare, ...]], list[str]]:
        """Of the baselines and of what was chosen; and why some have none."""
        standing = Standing(self.prepared.plan, self.ledger.trials)
        recipes: list[Recipe] = [*standing.running_baselines, *([found.chosen] if found.chosen is not None else [])]
        shares: dict[str, tuple[OperatorShare, ...]] = {}
        problems: list[str] = []
        for recipe in recipes:
            folder = self.folder.variant(recipe.key)
            answer = operators(
                folder,
                self.prepared.data,
                standing.first_batch,
                recipe.engine.threads,
                sandbox=self.prepared.request.sandbox,
                hidden=secrets_of(self.prepared.request),
            )
            shares[recipe.key] = answer.operators
            if answer.problem is not None:
                problems.append(f"{recipe.label} could not be profiled: {answer.problem}")
        return shares, problems

    def _start_time(self) -> str:
        """When the first trial was kept, less the time that it took."""
        first = min((path.stat().st_mtime for path in self.folder.ledger.glob("*.json")), default=None)
        trials = self.ledger.trials
        moment = first - trials[0].seconds if first is not None and trials else datetime.now(UTC).timestamp()
        return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

    def _read_result(self) -> RunResult | None:
        kept = self._file("result")
        return RunResult.model_validate_json(kept.read_bytes()) if kept.is_file() else None

    def _is_in_store(self, result: RunResult) -> bool:
        store = Store(self.prepared.request.store)
        wanted = [(result.report_uri, REPORT_JSON), (result.artifact_uri, MANIFEST_NAME)]
        return all(store.exists(f"{_relative(uri, store)}/{name}") for uri, name in wanted if uri is not None)

    def _file(self, name: str) -> Path:
        """Of what depends on more than the search: the names under which it was asked for, and where it goes."""
        request = self.prepared.request
        run = request.identity.model_dump(include={"namespace", "run"}) if request.identity is not None else None
        asked = {
            "name": request.name,
            "profile": request.profile,
            "store": request.store,
            "key": public_key(Path(request.signing_key)),
            "run": run,
        }
        return self.folder.root / f"{name}-{digest_of(asked)[:12]}.json"


def _relative(uri: str, store: Store) -> str:
    return uri.removeprefix(store.root.rstrip("/")).lstrip("/")
