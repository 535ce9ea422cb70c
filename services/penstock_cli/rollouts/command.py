"""`penstock rollout`: show, follow and tell how a new revision takes over."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from penstock_cli.objects.command import open_cluster
from penstock_cli.objects.showing import complain, remark, say
from penstock_cli.options import Context, Kubeconfig, Namespace, StateDir

if TYPE_CHECKING:
    from penstock.api.v1alpha1 import InferenceDeployment
    from penstock_operator.runtime.cluster import Cluster, Key

_FIELD_MANAGER = "penstock-rollout"
"""Of its own, so that `penstock apply` of the same object neither takes a command away nor is taken away by it."""

app = typer.Typer(
    help="How a deployment's new revision takes over: judged on live traffic, beside the one that serves.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Name = Annotated[str, typer.Argument(help="The InferenceDeployment.")]


class RolloutOutput(StrEnum):
    """How `status` writes."""

    TABLE = "table"
    YAML = "yaml"
    JSON = "json"


@app.command()
def status(
    name: Name,
    *,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Follow it until it has ended.")] = False,
    taken_over: Annotated[
        bool,
        typer.Option(
            "--taken-over", help="With -w: end once the new revision gets all requests, though it is watched still."
        ),
    ] = False,
    timeout: Annotated[float | None, typer.Option(help="With -w: seconds after which to give up.", min=0)] = None,
    output: Annotated[RolloutOutput, typer.Option("-o", "--output", help="How to write.")] = RolloutOutput.TABLE,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    state_dir: StateDir = None,
) -> None:
    """Show how far a new revision has come, and what is known of it.

    For each metric there is a bar for the evidence that the new revision is worse, and one for the evidence that it is no worse by
    more than is allowed. A full bar is enough. With `-w` it ends with 0 once the new revision was promoted, 1 when it was rolled
    back, and 3 when the time of `--timeout` is up.

    **Examples**

    `penstock rollout status digits`

    `penstock rollout status digits -w`

    `penstock rollout status digits -w --taken-over --timeout 1800`: for a pipeline

    `penstock rollout status digits -n vision -o json`
    """
    from penstock_cli.rollouts.following import Follower, RolloutExit, find_deployment, tell  # noqa: PLC0415 (loads the API types)

    if watch and output is RolloutOutput.YAML:
        _refuse("-w writes lines of text or of JSON: leave -o yaml out, or write -o json")
    with open_cluster(kubeconfig, context, state_dir, note_if_idle=True) as cluster:
        key = _key(namespace, name)
        if watch:
            ended = Follower(cluster, key, taken_over, as_json=output is RolloutOutput.JSON).follow(timeout)
            if ended is RolloutExit.TIME_IS_UP:
                remark(f"{name}: {timeout:g} s are over; the rollout goes on")
            raise typer.Exit(ended)
        found = find_deployment(cluster, key)
    if output is RolloutOutput.TABLE:
        from penstock_cli.objects.resources import utc_now  # noqa: PLC0415 (the same)

        say("\n".join(tell(found, utc_now())))
    else:
        _write(found, output)


def _write(found: InferenceDeployment, output: RolloutOutput) -> None:
    import json  # noqa: PLC0415 (with its only user)

    from penstock.api.documents import write_yaml  # noqa: PLC0415 (the same)
    from penstock_cli.rollouts.following import present_rollout  # noqa: PLC0415 (loads the API types)
    from penstock_cli.rollouts.showing import document  # noqa: PLC0415 (the same)

    shown = document(found.metadata.name, found.metadata.namespace, present_rollout(found))
    say((json.dumps(shown, indent=2) if output is RolloutOutput.JSON else write_yaml(shown)).rstrip())


_UNJUDGED: Final = "no new revision is judged, nor was"
_NOTHING_BESIDE: Final = (
    "what serves is the first revision, or it took over at once (`Immediate`), and the former one is gone"
)
_WAY_BACK: Final = (
    ". Apply the former spec again: it takes over once it answers. With spec.rollout.type Canary, Shadow or BlueGreen the former"
    " revision stays for keepSeconds, and undo gives it all requests back"
)
_VERBS: Final = {
    "promote": "Let the new revision take over now, proved or not. Of one that has taken over: let the former one go.",
    "pause": "Let it go no further. It keeps its share of the requests, and is rolled back when it is found to be worse.",
    "resume": "Let it go on where it is held, with all of its time again.",
    "abort": "Roll back a revision that has not taken over yet. It is not tried again before the spec changes, or `retry`.",
    "undo": "Give all requests back to the former revision, while it stays beside the one that has taken over.",
    "retry": "Judge a revision anew that was rolled back.",
}
"""What a rollout can be told, and what that does."""


def _add_verb(verb: str, does: str) -> None:
    def tell_rollout(
        name: Name,
        *,
        wait: Annotated[bool, typer.Option("--wait", help="End once the operator has carried it out.")] = False,
        timeout: Annotated[float, typer.Option(help="With --wait: seconds after which to give up.", min=0)] = 60.0,
        namespace: Namespace = "default",
        kubeconfig: Kubeconfig = None,
        context: Context = None,
        state_dir: StateDir = None,
    ) -> None:
        with open_cluster(kubeconfig, context, state_dir, note_if_idle=True) as cluster:
            command = _order(cluster, _key(namespace, name), verb)
            if wait and command is not None:
                _wait(cluster, _key(namespace, name), command, timeout)

    ends = "It ends with 2, and does nothing, where that makes no sense now, and says why. With `--wait`, 3: it is not done by then."
    example = f"`penstock rollout {verb} digits --wait`"
    app.command(verb, help=f"{does}\n\n{ends}\n\n**Example**\n\n{example}")(tell_rollout)


for _verb, _does in _VERBS.items():
    _add_verb(_verb, _does)


def _order(cluster: Cluster, key: Key, verb_name: str) -> str | None:
    """Tell the rollout, and say what comes of it.

    Returns:
        What it was told; None: it had been told so before.
    """
    from penstock.api.rollout_commands import RolloutVerb, refusal  # noqa: PLC0415 (loads the API types)
    from penstock_cli.objects.resources import utc_now  # noqa: PLC0415 (the same)
    from penstock_cli.rollouts.following import WAITING, find_deployment, present_rollout  # noqa: PLC0415 (the same)
    from penstock_cli.rollouts.showing import announce, command_for  # noqa: PLC0415 (the same)

    verb = RolloutVerb(verb_name)
    found = find_deployment(cluster, key)
    rollout = present_rollout(found)
    if rollout is None:
        what = (
            WAITING if found.status.rollout is not None else _NOTHING_BESIDE if verb is RolloutVerb.UNDO else _UNJUDGED
        )
        _refuse(f"{key.name}: {what}: there is nothing to {verb}" + _WAY_BACK * (what == _NOTHING_BESIDE))
    why = refusal(verb, rollout)
    if why is not None:
        _refuse(f"{key.name}: {why}")
    command = command_for(verb, rollout, utc_now())
    if command is None:
        say(f"{key.name}: it was told so already. {rollout.message}")
        return None
    _annotate(cluster, key, command)
    say(f"{key.name}: {announce(verb, rollout)}")
    return command


@app.command()
def page(
    name: Name,
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="The HTML file to write.", dir_okay=False)],
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    state_dir: StateDir = None,
) -> None:
    """Write a page of it: steps, evidence against its bounds over time, both revisions' metrics, answers that differed most.

    One file that needs nothing else, of a rollout that is under way or the last one.

    **Example**

    `penstock rollout page digits -o digits.html`
    """
    from penstock_cli.objects.resources import utc_now  # noqa: PLC0415 (loads the API types)
    from penstock_cli.rollouts.following import WAITING, find_deployment, present_rollout  # noqa: PLC0415 (the same)

    with open_cluster(kubeconfig, context, state_dir, note_if_idle=True) as cluster:
        found = find_deployment(cluster, _key(namespace, name))
    rollout = present_rollout(found)
    if rollout is None:
        what = "no new revision was judged" if found.status.rollout is None else WAITING
        _refuse(f"{name}: {what}: there is nothing to write a page of")
    from penstock_cli.rollouts.page import render  # noqa: PLC0415 (Jinja, only for this command)
    from penstock_runtime.atomic import write_atomically  # noqa: PLC0415 (with its only user)

    write_atomically(output, render(found, rollout, utc_now()).encode())
    say(f"{output} written")


def _annotate(cluster: Cluster, key: Key, command: str) -> None:
    from penstock.api.rollout_commands import ROLLOUT_ANNOTATION  # noqa: PLC0415 (loads the API types)
    from penstock_operator.kinds import INFERENCE_DEPLOYMENT  # noqa: PLC0415 (the same)
    from penstock_operator.runtime.cluster import identity  # noqa: PLC0415 (the same)

    told = identity(INFERENCE_DEPLOYMENT, {"metadata": {"name": key.name, "namespace": key.namespace}})
    told["metadata"]["annotations"] = {ROLLOUT_ANNOTATION: command}
    cluster.apply(INFERENCE_DEPLOYMENT, told, _FIELD_MANAGER)


def _wait(cluster: Cluster, key: Key, command: str, timeout: float) -> None:
    from penstock_cli.rollouts.following import RolloutExit, find_deployment, wait_until_obeyed  # noqa: PLC0415 (loads the API types)

    obeyed = wait_until_obeyed(cluster, key, command, timeout)
    if obeyed is not None:
        say(f"{key.name}: {obeyed.phase}: {obeyed.message}")
        return
    rollout = find_deployment(cluster, key).status.rollout
    stands = f" It stands so: {rollout.phase}: {rollout.message}" if rollout is not None else ""
    remark(f"{key.name}: not carried out within {timeout:g} s, and still to be.{stands}")
    raise typer.Exit(RolloutExit.TIME_IS_UP)


def _key(namespace: str, name: str) -> Key:
    from penstock_operator.runtime.cluster import Key  # noqa: PLC0415 (loads the API types)

    return Key(namespace, name)


def _refuse(message: str) -> NoReturn:
    """Say what makes no sense now, as an error, and end with 2."""
    from penstock_cli.rollouts.following import RolloutExit  # noqa: PLC0415 (loads the API types)

    complain(message)
    raise typer.Exit(RolloutExit.NOT_NOW)
