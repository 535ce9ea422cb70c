"""`penstock key`: make, list and delete API keys. A key itself is shown once and kept nowhere."""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.api import API_VERSION
from penstock.api.verdicts import timestamp
from penstock.errors import Conflict, Invalid, PenstockError
from penstock.routing.access import fingerprint
from penstock_cli.objects.command import delete, get, open_cluster
from penstock_cli.objects.showing import OutputFormat, remark, say, write_document
from penstock_cli.options import AllNamespaces, Context, Kubeconfig, Namespace, Output, StateDir

if TYPE_CHECKING:
    from penstock_operator.runtime.cluster import Manifest

KEY_PREFIX = "pk_"
"""So that secret scanners, and people, know it for what it is."""
_KEY_BYTES = 32
_LIFETIME = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LAST_YEAR = 9999

app = typer.Typer(help="API keys, by which callers are let in to a namespace's models.", no_args_is_help=True)


class KeyOutput(StrEnum):
    """How `create` writes the object instead of applying it."""

    YAML = "yaml"
    JSON = "json"


def new_key() -> str:
    """A key of 256 random bits, in letters, digits, `-` and `_`."""
    return KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def expiry(lifetime: str, now: datetime) -> str:
    """The end of a lifetime such as `30d`, in RFC 3339.

    Args:
        lifetime: a whole number and s, m, h, d or w.
        now: when it begins.

    Raises:
        Invalid: it is written otherwise, or ends after the calendar does.
    """
    found = _LIFETIME.fullmatch(lifetime)
    if found is None:
        raise Invalid("InvalidOption", f"--expires-in {lifetime}: write a number and s, m, h, d or w, such as 30d")
    try:
        end = now + timedelta(**{_UNITS[found[2]]: int(found[1])})
    except OverflowError as error:
        raise Invalid("InvalidOption", f"--expires-in {lifetime}: that is after the year {_LAST_YEAR}") from error
    return timestamp(end.timestamp())


def key_object(
    name: str, namespace: str, secret: str, *, deployments: list[str], limit: int | None, expires_at: str | None
) -> Manifest:
    """The `APIKey` of a key, which holds its hash.

    Args:
        name: `metadata.name`.
        namespace: whose models it opens.
        secret: the key.
        deployments: what it opens; empty: all of the namespace.
        limit: requests a second.
        expires_at: RFC 3339.
    """
    spec: dict[str, Any] = {"sha256": fingerprint(secret)}
    spec |= {"deployments": deployments} if deployments else {}
    spec |= {"requestsPerSecond": limit} if limit is not None else {}
    spec |= {"expiresAt": expires_at} if expires_at is not None else {}
    return {
        "apiVersion": API_VERSION,
        "kind": "APIKey",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="The APIKey's name; traces show it as the caller.")],
    *,
    deployment: Annotated[
        list[str] | None, typer.Option("-d", "--deployment", help="What it opens; may repeat. None: the namespace.")
    ] = None,
    requests_per_second: Annotated[int | None, typer.Option(help="Above this, requests get 429.", min=1)] = None,
    expires_in: Annotated[str | None, typer.Option(help="Lifetime, such as 12h or 30d. None: no end.")] = None,
    output: Annotated[KeyOutput | None, typer.Option("-o", "--output", help="Write the object; apply nothing.")] = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    state_dir: StateDir = None,
) -> None:
    """Make a key and show it. It is shown this once: only its hash is kept.

    **Examples**

    `penstock key create ci --expires-in 90d`

    `penstock key create shop -d digits --requests-per-second 50 -n vision`

    `penstock key create shop -o yaml > shop-key.yaml`: the key itself goes to standard error
    """
    from penstock_cli.objects.resources import find_kind, utc_now  # noqa: PLC0415 (loads the API types)
    from penstock_operator.runtime.cluster import Key  # noqa: PLC0415 (the same)

    secret = new_key()
    manifest = key_object(
        name,
        namespace,
        secret,
        deployments=deployment or [],
        limit=requests_per_second,
        expires_at=None if expires_in is None else expiry(expires_in, utc_now()),
    )
    _check(manifest)
    if output is not None:
        write_document([manifest], OutputFormat(output.value), single=True)
        remark(f"The key, which is shown this once: {secret}")
        return
    with open_cluster(kubeconfig, context, state_dir) as cluster:
        try:
            cluster.create(find_kind("APIKey"), manifest)
        except Conflict as error:
            if error.reason != "AlreadyExists":
                raise
            raise Invalid(
                "AlreadyExists", f"there is an APIKey {name} in namespace {namespace}; name another, or delete that one"
            ) from error
        say(secret)
        remark(f"apikey/{name} created. This is the key, shown this once: send it as 'Authorization: Bearer KEY'.")
        with suppress(PenstockError):  # who may make keys need not be one who may look at deployments
            for each in deployment or []:
                if cluster.get(find_kind("InferenceDeployment"), Key(namespace, each)) is None:
                    remark(
                        f"There is no deployment {each} in namespace {namespace} yet: the key opens it once there is one."
                    )


def _check(manifest: Manifest) -> None:
    """Refuse what the API server would, before a key is shown."""
    from penstock_cli.validation.admission import validate  # noqa: PLC0415 (the CEL evaluator takes half a second to import)

    problems = [str(problem) for problem in validate(manifest, None)]
    if problems:
        raise Invalid("InvalidManifest", "\n".join(problems))


@app.command("list")
def list_(
    *,
    output: Output = OutputFormat.TABLE,
    namespace: Namespace = "default",
    all_namespaces: AllNamespaces = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    state_dir: StateDir = None,
) -> None:
    """Show keys: what each opens, its limit, its end, and whether it is accepted."""
    get(
        ["apikeys"],
        output=output,
        namespace=namespace,
        all_namespaces=all_namespaces,
        kubeconfig=kubeconfig,
        context=context,
        state_dir=state_dir,
    )


@app.command("delete")
def delete_(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="APIKeys.")],
    *,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    state_dir: StateDir = None,
) -> None:
    """Delete keys: requests with them get 401 within seconds."""
    delete(["apikeys", *names], namespace=namespace, kubeconfig=kubeconfig, context=context, state_dir=state_dir)
