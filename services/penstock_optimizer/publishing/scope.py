"""Whether a search's credentials open its namespace's part of the artifact store, and nothing beside it."""

from __future__ import annotations

from typing import Final

from penstock.errors import Invalid
from penstock_runtime.filesystems import is_local
from penstock_runtime.storage import Store

STORE_NOT_SCOPED: Final = "StoreNotScoped"


def check_scope(store: str) -> None:
    """Try what must not be allowed: to list and to write beside the namespace's own part.

    Args:
        store: URI of that part, whose last segment is the namespace.

    Raises:
        Invalid: StoreNotScoped; something of it is allowed.
        Unavailable: the store does not answer.
    """
    whole, _, namespace = store.rstrip("/").rpartition("/")
    if is_local(store):
        return  # a folder has no credentials
    permitted = Store(whole).probe_permissions(f".scope-of-{namespace}")
    if permitted:
        raise Invalid(
            STORE_NOT_SCOPED,
            f"the store's credentials in the namespace {namespace} may {' and '.join(permitted)} at {whole}, where other "
            f"namespaces' models are: give it credentials for {store}/ alone (docs/install.md has the policy), or have the "
            "chart's optimization.sharedStore say that this is meant",
        )
