"""A CEL rule, and those that many fields share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_DNS_NAME: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
SUBDOMAIN: Final = f"^{_DNS_NAME}$"
"""RFC 1123, as Kubernetes has it for names."""
LABEL_KEY: Final = f"^({_DNS_NAME}/)?" + r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
"""Kubernetes' qualified name, but for the length of its prefix."""
LABEL_VALUE: Final = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
"""A label's value that is not empty."""
_LONGEST_PREFIX: Final = "^([^/]{1,253}/)?[^/]*$"
_IDENTIFIERS: Final = r"[A-Za-z_][A-Za-z0-9_]*(\\.[A-Za-z_][A-Za-z0-9_]*)*"
_RATIO: Final = r"^(0(\\.[0-9]+)?|1(\\.0+)?)$"
_DECIMAL: Final = r"^[0-9]+(\\.[0-9]+)?$"


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of `x-kubernetes-validations`."""

    rule: str
    message: str
    message_expression: str | None = None
    """CEL that makes the message where it can quote what was written; `message` stands in when it fails.

    Only over strings of a maximum length: the API server takes a number turned into text for one of any length, and
    refuses the CRD for what the expression could cost.
    """
    reason: str = "FieldValueInvalid"
    field_path: str | None = None
    """The field to blame, relative to where the rule stands."""

    def to_schema(self) -> dict[str, str]:
        """The entry as Kubernetes spells it."""
        entry = {"rule": self.rule, "message": self.message, "reason": self.reason}
        if self.message_expression is not None:
            entry["messageExpression"] = self.message_expression
        if self.field_path is not None:
            entry["fieldPath"] = self.field_path
        return entry


def is_one_of(subject: str, values: Sequence[str]) -> str:
    """CEL that holds where a text is one of these."""
    quoted = ", ".join(f"'{each}'" for each in values)
    return f"{subject} in [{quoted}]"


def is_none_of(subject: str, values: Sequence[str]) -> str:
    """CEL that holds where a text is none of these."""
    return f"{subject} != '{values[0]}'" if len(values) == 1 else f"!({is_one_of(subject, values)})"


def matches(pattern: str, message: str) -> Rule:
    """Text that fits a pattern (RE2)."""
    return Rule(f"self.matches('{pattern}')", message)


def positive_quantity(field: str, example: str) -> tuple[Rule, ...]:
    """A Kubernetes quantity above 0."""
    return (
        Rule(
            "isQuantity(string(self))",
            f"{field} must be a quantity, such as {example}",
            message_expression=f"'{field} must be a quantity, such as {example}: \"' + string(self) + '\" is none'",
        ),
        Rule(
            "!isQuantity(string(self)) || quantity(string(self)).isGreaterThan(quantity('0'))",
            f"{field} must be more than 0, such as {example}",
        ),
    )


def labels(field: str) -> tuple[Rule, ...]:
    """Labels of nodes, which Kubernetes, KubeRay and Ray all take."""
    return (
        Rule(
            f"self.all(key, key.matches('{LABEL_KEY}') && key.matches('{_LONGEST_PREFIX}'))",
            f"{field} must have keys that node labels can have: at most 63 letters, digits, - _ and . between them, after "
            "a DNS name and / where the label has one, such as model or kubernetes.io/arch",
        ),
        Rule(
            f"self.all(key, self[key] == '' || self[key].matches('{LABEL_VALUE}'))",
            f"{field} must have values that node labels can have: letters, digits, - _ and . between them, without spaces, "
            "such as A100-80GB",
        ),
    )


def auto_or_whole(field: str, low: int, high: int) -> tuple[Rule, ...]:
    """A whole number, or Auto."""
    return (
        Rule(
            f"string(self) == 'Auto' || (string(self).matches('^[0-9]{{1,6}}$') && "
            f"int(string(self)) >= {low} && int(string(self)) <= {high})",
            f"{field} must be Auto or a whole number from {low} to {high}",
            message_expression=(
                f"'{field} must be Auto or a whole number from {low} to {high}: \"' + string(self) + '\" is neither'"
            ),
        ),
    )


def ratio(field: str, example: str) -> tuple[Rule, ...]:
    """A decimal from 0 to 1."""
    return (
        Rule(
            f"string(self).matches('{_RATIO}')",
            f'{field} must be a decimal from "0" to "1", in quotes, such as "{example}"',
            message_expression=(
                f'\'{field} must be a decimal from "0" to "1", in quotes, such as "{example}": "\' + '
                "string(self) + '\" is none'"
            ),
        ),
    )


def positive_ratio(field: str, example: str, *, most: str = "1") -> tuple[Rule, ...]:
    """A decimal above 0, up to 1 or to less."""
    return (
        Rule(
            f"string(self).matches('{_RATIO}') && double(string(self)) > 0.0 && double(string(self)) <= double('{most}')",
            f'{field} must be a decimal above "0" and at most "{most}", in quotes, such as "{example}"',
            message_expression=(
                f'\'{field} must be a decimal above "0" and at most "{most}", in quotes, such as "{example}": "\' + '
                "string(self) + '\" is none'"
            ),
        ),
    )


def decimal(field: str, example: str, *, positive: bool = False) -> tuple[Rule, ...]:
    """A decimal of 0 or more, or above 0."""
    least = "more than 0" if positive else "0 or more"
    above = " && double(string(self)) > 0.0" if positive else ""
    return (
        Rule(
            f"string(self).matches('{_DECIMAL}'){above}",
            f'{field} must be a decimal of {least}, in quotes, such as "{example}"',
            message_expression=(
                f'\'{field} must be a decimal of {least}, in quotes, such as "{example}": "\' + '
                "string(self) + '\" is none'"
            ),
        ),
    )


def shares(field: str, example: str) -> tuple[Rule, ...]:
    """A list of decimals between 0 and 1, without both."""
    return (
        Rule(
            r"self.all(each, string(each).matches('^0\\.[0-9]*[1-9][0-9]*$'))",
            f'{field} must be decimals between "0" and "1", without these two, in quotes, such as ["{example}"]',
        ),
    )


def import_path(field: str, example: str) -> tuple[Rule, ...]:
    """`package.module:callable`."""
    return (
        matches(
            f"^{_IDENTIFIERS}:{_IDENTIFIERS}$",
            f"{field} must be package.module:callable, with one colon, such as {example}",
        ),
    )


_LOCATIONS: Final = (
    (
        "file",
        "^file:///[^?#]+$",
        "file:// and an absolute path, with three slashes in all, such as file:///models/digits/1",
    ),
    (
        "pvc",
        "^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[^?#]*)?$",
        "pvc://, a PersistentVolumeClaim of the pool, and a path unless all of it is meant, such as pvc://models/digits/1",
    ),
    (
        "s3",
        "^s3://[^/?#@]+(/[^?#]*)?$",
        "s3://, a bucket, and a path in it unless all of it is meant, such as s3://models/digits/1",
    ),
    (
        "gs",
        "^gs://[^/?#@]+(/[^?#]*)?$",
        "gs://, a bucket, and a path in it unless all of it is meant, such as gs://models/digits/1",
    ),
    (
        "https",
        "^https://[^/?#@]+/[^?#]+$",
        "https://, a host and a path, with no query and no password, such as https://models.example.com/digits/1",
    ),
    (
        "hf",
        "^hf://[A-Za-z0-9._-]+/[A-Za-z0-9._-]+(@[^/?#]+)?(/[^?#]+)?$",
        "hf://, an organization and a repository, such as hf://org/repo, hf://org/repo/path or hf://org/repo@main/path",
    ),
    (
        "oci",
        "^oci://[^/?#@]+/[a-z0-9._/-]+(:[A-Za-z0-9_][A-Za-z0-9._-]*|(:[A-Za-z0-9_][A-Za-z0-9._-]*)?@sha256:[0-9a-f]{64})$",
        "oci://, a registry, a repository, and a tag or a digest, such as oci://registry.example.com/models/digits:1",
    ),
)
"""Schemes, what their URIs look like (RE2), and in words."""


def location(field: str, example: str) -> tuple[Rule, ...]:
    """A URI that this release reads."""
    schemes = [f"{scheme}://" for scheme, _, _ in _LOCATIONS]
    known = "|".join(scheme for scheme, _, _ in _LOCATIONS)
    return (
        Rule(
            f"self.matches('^({known})://')",
            f"{field} must start with {', '.join(schemes[:-1])} or {schemes[-1]}, such as {example}",
        ),
        *(
            Rule(f"!self.startsWith('{scheme}://') || self.matches('{pattern}')", f"{field} must be {words}")
            for scheme, pattern, words in _LOCATIONS
        ),
    )


def immutable(message: str) -> Rule:
    """A value that stays as it was created."""
    return Rule("self == oldSelf", message, reason="FieldValueForbidden")
