"""What the documentation shows is what there is: resources that are taken, values and options that exist, links that lead."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from images.__main__ import _parser as _image_parser
from tests.benchmarks import endurance, peer_table, real_rollouts, rollout
from tests.chart.helm import CHART, helm
from typer.main import get_command

from penstock_cli.main import app as cli
from penstock_cli.validation.manifests import problems_of, validate_files
from penstock_operator import flags as operator_flags
from penstock_serving.gateway import settings as gateway_settings

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted(
    [
        *(ROOT / f"{each}.md" for each in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY")),
        *(ROOT / "docs").rglob("*.md"),
    ]
)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_HEREDOC = re.compile(r"<<-?'?YAML'?\n(.*?)^YAML$", re.MULTILINE | re.DOTALL)
_OURS = "penstock.dev/"


def _manifests() -> Iterator[Any]:
    """Every whole resource of ours that a page shows."""
    for page in PAGES:
        for number, (language, text) in enumerate(_BLOCK.findall(page.read_text())):
            shown = [text] if language == "yaml" else _HEREDOC.findall(text) if language == "sh" else []
            for each in shown:
                if f"apiVersion: {_OURS}" in each:
                    # What a shell would put in its place.
                    whole = re.sub(r"\$\(.*\)", "0" * 64, each)
                    yield pytest.param(whole, id=f"{page.relative_to(ROOT)} block {number + 1}")


@pytest.mark.parametrize("text", list(_manifests()))
def test_a_resource_that_is_shown_is_taken(text: str, tmp_path: Path) -> None:
    path = tmp_path / "shown.yaml"
    path.write_text(text)
    verdicts = validate_files([str(path)])
    assert sum(len(each.documents) for each in verdicts) > 0
    assert [each.text for each in problems_of(verdicts)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_what_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    missing = [each for each in links if "://" not in each and not (page.parent / each).exists()]
    assert missing == []


def test_values_of_the_chart_that_are_named_exist() -> None:
    values = yaml.safe_load(helm("show", "values", str(CHART)))
    named = {name for page in PAGES for name in re.findall(r"--set(?:-file|-json)? '?([a-zA-Z.]+)", page.read_text())}
    assert named
    assert {each for each in named if not _exists(values, each.split("."))} == set()


def _exists(values: Any, path: list[str]) -> bool:
    for part in path:
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


def test_options_that_are_named_exist() -> None:
    benchmarks = (peer_table.parser(), endurance.parser(), real_rollouts.parser(), rollout.parser())
    parsers = (operator_flags.parser(), gateway_settings._parser(), _image_parser(), *benchmarks)
    known = {option for each in parsers for option in _options(each)} | _commands_options(get_command(cli)) | _OTHERS
    named = {
        option
        for page in PAGES
        for option in re.findall(r"(?<![-\w])--[a-z][a-z-]+\b", _our_commands(page.read_text()))
    }
    assert len(named) > 40
    assert named - known == set()


_OTHERS = {
    "--volume",
    "--set",
    "--set-file",
    "--cacert",
    "--metrics-export-port",
    "--no-hooks",
    "--hypothesis-profile",
    "--mount",
    "--timestamp",
}
"""Of buildah, Helm, curl and Ray."""


def _our_commands(text: str) -> str:
    """What is in code on a page, without the lines that are other programs'."""
    code = [block for _, block in _BLOCK.findall(text)] + re.findall(r"`([^`\n]+)`", _BLOCK.sub("", text))
    others = re.compile(
        r"^\s*(kubectl|helm|openssl|buildah|install|git|uv|docker|podman|skopeo|ctr|kind|oras|cosign)\b"
    )
    lines = "\n".join(code).replace("\\\n", " ").splitlines()
    return "\n".join(line for line in lines if not others.match(line))


def _options(parser: argparse.ArgumentParser) -> set[str]:
    found = set()
    for action in parser._actions:
        found |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                found |= _options(each)
    return found


def _commands_options(command: Any) -> set[str]:
    found = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    for each in getattr(command, "commands", {}).values():
        found |= _commands_options(each)
    return found
