"""`helm uninstall`: refuses while there is what only a running operator can end. Standard library only.

Arguments: the API server's base URL, the folder of the service account, the release, its namespace, and the namespaces to look in
(none: all).
"""

import json
import ssl
import sys
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path

KINDS = {"inferencedeployments": "InferenceDeployment", "servingpools": "ServingPool"}
NAMED = 5
CANNOT_TELL = {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}
"""Where nothing may be seen, or nothing is served, there is nothing to refuse for."""
TERMINATION_LOG = Path("/dev/termination-log")


def list_objects(api: str, account: Path, namespace: str, plural: str) -> list[str]:
    """The objects of a kind, as NAMESPACE/NAME."""
    space = f"/namespaces/{namespace}" if namespace else ""
    headers = {"authorization": f"Bearer {(account / 'token').read_text().strip()}"}
    request = urllib.request.Request(f"{api}/apis/penstock.dev/v1alpha1{space}/{plural}", headers=headers)  # noqa: S310 (the chart wrote the URL)
    context = ssl.create_default_context(cafile=str(account / "ca.crt"))
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as response:  # noqa: S310 (as above)
            items = json.load(response)["items"]
    except urllib.error.HTTPError as error:
        if error.code in CANNOT_TELL:
            print(f"{plural} {namespace}: {error.reason}; not looked at", flush=True)
            return []
        raise
    return [f"{each['metadata']['namespace']}/{each['metadata']['name']}" for each in items]


def main() -> int:
    """The process's exit status."""
    api, account, release, system, *namespaces = sys.argv[1:]
    left = {
        kind: [each for space in namespaces or [""] for each in list_objects(api, Path(account), space, plural)]
        for plural, kind in KINDS.items()
    }
    told = [
        f"{len(names)} {kind}{'s' if len(names) > 1 else ''} ({', '.join(names[:NAMED])}{', …' if len(names) > NAMED else ''})"
        for kind, names in left.items()
        if names
    ]
    if not told:
        print("Nothing is left that needs the operator.")
        return 0
    message = (
        f"Not uninstalled: there are still {' and '.join(told)}. Without the operator their Ray clusters would keep their nodes, and "
        "neither they nor their namespaces nor the CRDs could be deleted, since nobody takes their finalizers off. First run\n"
        "  kubectl delete infdep,servingpool -A --all\n"
        "or, to leave them to a next installation,\n"
        f"  helm uninstall {release} -n {system} --no-hooks\n"
    )
    print(message, flush=True)
    if TERMINATION_LOG.exists():
        TERMINATION_LOG.write_text(message)
    return 1


if __name__ == "__main__":
    sys.exit(main())
