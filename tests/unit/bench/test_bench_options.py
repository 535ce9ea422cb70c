"""What `penstock bench` refuses before it asks any server."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.telling import assert_tells
from typer.testing import CliRunner

from penstock.errors import Invalid
from penstock_cli.main import app

# Nobody listens there: whoever asked would get another error.
_URL = "http://127.0.0.1:9/v2/models/m"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param([_URL, "--rate", "1e9"], "--rate 5,000,000 --seconds", id="more requests than are kept"),
        pytest.param([_URL, "--rate", "10", "--seconds", "inf"], "--seconds inf", id="an endless load"),
        pytest.param(
            [_URL, "--html", "/nowhere/page.html"], "--html /nowhere/page.html folder", id="a page for no folder"
        ),
        pytest.param(
            [_URL, "--body", __file__, "--shape", "x=3"], "--shape --body", id="a shape of a request that is given"
        ),
        pytest.param(["h:80/v2/models/m"], "h:80/v2/models/m http://", id="a URL without its beginning"),
    ],
)
def test_what_cannot_come_out_well_is_refused_at_once(arguments: list[str], told: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", *arguments, "--state-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert isinstance(result.exception, Invalid), result.exception
    assert_tells(result.exception.message, told)
