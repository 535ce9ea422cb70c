"""What a schema cannot say, as CEL rules beside the types that they bind.

A rule stands at a model (`self` is the object) or at one of its fields (`self` is the value). The API server checks
them at `kubectl apply`; `penstock_cli.validation.admission` checks the same text without a server. A message says what to write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel

from penstock.api import meta, pool_rules, profile_rules, rollout_rules
from penstock.api import v1alpha1 as api
from penstock.api.rule import (
    LABEL_VALUE,
    SUBDOMAIN,
    Rule,
    auto_or_whole,
    import_path,
    is_none_of,
    labels,
    location,
    matches,
    positive_quantity,
)
from penstock.engines import Servability, formats_where
from penstock.wording import join_with_or

_FORMAT: Final = "self.model.modelFormat"
_CONVERTED: Final = sorted(formats_where(lambda each: each.served is Servability.CONVERTED))
_SIGNED: Final = formats_where(lambda each: each.served is Servability.SIGNED)
_ELSEWHERE: Final = formats_where(lambda each: each.served is Servability.ELSEWHERE)
_ENDS: Final = formats_where(lambda each: each.served is Servability.AS_IS and not each.optimizable)
_NUMBER: Final = r"^-?[0-9]+(\\.[0-9]+)?$"
_CLOCK: Final = "^([01][0-9]|2[0-3]):[0-5][0-9]$"
_PLACE: Final = "^(UTC|[A-Za-z]+(/[A-Za-z0-9_+-]+)+)$"
_IS_NUMBER: Final = f"string(self).matches('{_NUMBER}')"

MODEL_RULES: Final[Mapping[type[BaseModel], tuple[Rule, ...]]] = {
    **profile_rules.MODEL_RULES,
    **pool_rules.MODEL_RULES,
    **rollout_rules.MODEL_RULES,
    api.InferenceDeployment: (
        Rule(
            "self.metadata.name.size() <= 40 && !self.metadata.name.contains('.')",
            "metadata.name must have at most 40 characters, all of them a-z, 0-9 or -, such as digits-2: "
            "it becomes part of a URL and of other objects' names",
        ),
    ),
    api.ModelSource: (
        Rule(
            "self.modelFormat != 'safetensors' || has(self.importPath)",
            "importPath is needed with modelFormat safetensors, which holds weights and no code: name the callable that "
            "gives the torch.nn.Module, such as models.digits:build",
            field_path=".importPath",
        ),
        Rule(
            "self.modelFormat == 'safetensors' || !has(self.importPath)",
            "importPath goes with modelFormat safetensors only: leave it out, since other formats hold the whole model",
            field_path=".importPath",
        ),
        Rule(
            "!has(self.digest) || self.updatePolicy != 'Automatic'",
            "updatePolicy Automatic serves whatever model is put at storageUri, and digest allows one alone: leave one of "
            "them out",
            field_path=".updatePolicy",
        ),
    ),
    api.InferenceDeploymentSpec: (
        Rule(
            f"{is_none_of(_FORMAT, _CONVERTED)} || has(self.optimizationProfileRef)",
            f"modelFormat {join_with_or(_CONVERTED)} is not served as it is, since its files are code or need some: add "
            "optimizationProfileRef, such as {name: balanced}, whose run converts it, or give the model as onnx",
            field_path=".model.modelFormat",
        ),
        Rule(
            f"{is_none_of(_FORMAT, _SIGNED)} || has(self.optimizationProfileRef) || has(self.model.digest)",
            f"modelFormat {join_with_or(_SIGNED)} is served only where a search made and signed it, since such files are code: add "
            "optimizationProfileRef, such as {name: balanced}, whose run converts it; or give the digest of what "
            "`penstock optimize` signed, or the model as onnx",
            field_path=".model.modelFormat",
        ),
        Rule(
            is_none_of(_FORMAT, _ELSEWHERE),
            f"modelFormat {join_with_or(_ELSEWHERE)} is what the profile edge makes for devices, and no replica serves it: give the model as onnx",
            field_path=".model.modelFormat",
        ),
        Rule(
            f"!has(self.optimizationProfileRef) || {is_none_of(_FORMAT, _ENDS)}",
            f"an optimization starts from {join_with_or(profile_rules.OPTIMIZABLE)}; {join_with_or(_ENDS)} is what it may end "
            "with: give the model as onnx, or leave optimizationProfileRef out",
            field_path=".model.modelFormat",
        ),
        Rule(
            "!has(self.slo) || !string(self.batching.maxDelayMilliseconds).matches('^[0-9]{1,9}$') || "
            "int(string(self.batching.maxDelayMilliseconds)) < self.slo.latencyP99Milliseconds",
            "maxDelayMilliseconds must be less than slo.latencyP99Milliseconds, since a request that waits so long for "
            "its batch breaks the promise: lower the one or raise the other",
            field_path=".batching.maxDelayMilliseconds",
        ),
        Rule(
            "!has(self.scaling.replicas) || !has(self.replicas) || self.replicas == self.scaling.replicas || "
            "(has(oldSelf.replicas) && oldSelf.replicas == self.replicas)",
            "spec.scaling.replicas fixes the number of replicas, so no other can be set by scaling: change it there, or take it out",
            reason="FieldValueForbidden",
            field_path=".replicas",
        ),
    ),
    api.Scaling: (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "minReplicas must not be more than maxReplicas (1 where it is left out): lower the one or raise the other",
            field_path=".minReplicas",
        ),
        Rule(
            "self.schedule.all(each, each.minReplicas <= self.maxReplicas)",
            "minReplicas of schedule must not be more than maxReplicas (1 where it is left out): lower the one or raise the other",
            field_path=".schedule",
        ),
    ),
    api.ScheduledFloor: (
        Rule(
            "self.start != self.end",
            "start and end must differ; for the whole day write 00:00 and 23:59, or raise scaling.minReplicas",
            field_path=".end",
        ),
    ),
}

FIELD_RULES: Final[Mapping[tuple[type[BaseModel], str], tuple[Rule, ...]]] = {
    **profile_rules.FIELD_RULES,
    **pool_rules.FIELD_RULES,
    **rollout_rules.FIELD_RULES,
    (api.ModelSource, "storage_uri"): location("storageUri", "file:///models/digits/1"),
    (api.ModelSource, "data_uri"): location("dataUri", "file:///data/digits"),
    (api.ModelSource, "import_path"): import_path("importPath", "models.digits:build"),
    (api.ModelSource, "digest"): (
        matches(
            "^sha256:[0-9a-f]{64}$",
            "digest must be sha256: and 64 lower-case hex digits, those that sha256sum prints for the model's "
            "manifest.json, or for the model where it is a lone file; leave it out to take whatever model is there",
        ),
    ),
    (api.ModelSource, "version"): (
        matches(
            "^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
            "version must be one segment of a URL: letters, digits, - _ and . between them, such as 1 or 2026-03.b",
        ),
    ),
    (api.ProfileReference, "name"): (
        matches(SUBDOMAIN, "name must be that of a profile: a-z, 0-9, - and ., such as balanced"),
    ),
    (meta.LocalReference, "name"): (
        matches(SUBDOMAIN, "name must be that of an object in this namespace: a-z, 0-9, - and ., such as default"),
    ),
    (api.InferenceDeploymentSpec, "pool_ref"): (
        Rule(
            "self.name == oldSelf.name",
            "poolRef cannot be changed: create another InferenceDeployment with the new poolRef, then delete this one",
            reason="FieldValueForbidden",
            field_path=".name",
        ),
    ),
    (api.Resources, "cpu"): positive_quantity("cpu", "1 or 500m"),
    (api.Resources, "memory"): positive_quantity("memory", "1Gi or 512Mi"),
    (api.Resources, "node_labels"): labels("nodeLabels"),
    (api.Accelerator, "type"): (
        matches(LABEL_VALUE, "type must be the value of a node label: letters, digits, - _ and ., such as nvidia-l4"),
    ),
    (api.Accelerator, "count"): (
        Rule(_IS_NUMBER, 'count must be a whole number or a share of one accelerator in decimals, such as 1 or "0.5"'),
        Rule(
            f"!{_IS_NUMBER} || double(string(self)) > 0.0",
            'count must be more than 0, such as 1 or "0.5"; for no accelerator leave accelerator out',
        ),
        Rule(
            f"!{_IS_NUMBER} || double(string(self)) <= 1.0 || string(self).matches('^[0-9]+(\\\\.0+)?$')",
            'count above 1 must be whole, such as 2: only a share of a single accelerator can be a fraction, such as "0.5"',
        ),
        Rule(
            f"!{_IS_NUMBER} || string(self).matches('^-?[0-9]+(\\\\.[0-9]{{1,2}})?$')",
            'count must have at most two decimals, such as "0.25"',
        ),
    ),
    (api.Batching, "max_batch_size"): auto_or_whole("maxBatchSize", 1, 4096),
    (api.Batching, "max_delay_milliseconds"): auto_or_whole("maxDelayMilliseconds", 0, 10_000),
    (api.Scaling, "target_in_flight_requests"): auto_or_whole("targetInFlightRequests", 1, 100_000),
    (api.ScheduledFloor, "start"): (matches(_CLOCK, 'start must be a time of day in quotes, such as "07:30"'),),
    (api.ScheduledFloor, "end"): (matches(_CLOCK, 'end must be a time of day in quotes, such as "19:00"'),),
    (api.ScheduledFloor, "time_zone"): (
        # Which places are known is told by the operator, in a condition: an expression that looks one up ends with an error of its own.
        matches(_PLACE, "timeZone must be a place's, such as Europe/Zurich, or UTC"),
    ),
    (api.Cache, "max_bytes"): positive_quantity("maxBytes", "64Mi"),
    (api.Tracing, "sampling_ratio"): (
        Rule(
            "string(self).matches('^(0(\\\\.[0-9]+)?|1(\\\\.0+)?)$')",
            'samplingRatio must be a decimal from "0" (no request) to "1" (every request), such as "0.01"',
        ),
    ),
}
