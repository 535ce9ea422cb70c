"""What a person may type by mistake, command by command: what is wrong, where, what to do, and never a stack trace."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from tests.ports import free_port
from tests.telling import assert_tells
from typer.testing import CliRunner

from penstock.errors import PenstockError
from penstock_cli.main import app, main
from penstock_cli.validation.admission import validate_text

BINARY = b"\x08\x08\xea\x02\xff\x00onnx"
MODEL = "http://127.0.0.1:9/v2/models/m"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    Path("binary").write_bytes(BINARY)
    Path("my model.onnx").write_bytes(BINARY)
    Path("my.pt2").write_bytes(BINARY)
    Path("empty").touch()
    Path("text.json").write_text('"a text"')
    Path("headed.csv").write_text("# a comment\nsecond,rate\n0,10\n")
    Path("damaged").mkdir()
    Path("damaged", "cluster.db").write_bytes(BINARY)
    Path("open.yaml").write_text("currency: EUR\ncpuHour: {a: 1\nmemoryGibHour: 2\n")
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "facts"),
    [
        pytest.param("replay binary", "binary:1: UTF-8", id="a load that is no text"),
        pytest.param("replay headed.csv", "headed.csv:2: second,rate SECONDS,RATE #", id="a load with a heading"),
        pytest.param("replay empty", "empty no request SECONDS,RATE", id="an empty load"),
        pytest.param("replay --curve text.json", "--curve text.json manifest.json", id="a curve that is another document"),
        pytest.param("replay --min 5 --max 2", "--min 5 --max 2", id="a least number above the greatest"),
        pytest.param("replay --policy ,", "--policy penstock,serve,knative,hpa", id="no policy at all"),
        pytest.param("replay --low 9 --high 4", "--low 9 --high 4", id="a low rate above the high one"),
        pytest.param(f"bench {MODEL} --key-file binary", "binary:1: UTF-8", id="a key that is no text"),
        pytest.param(f"bench {MODEL} --key-file empty", "--key-file empty one line", id="a file without a key"),
        pytest.param(f"bench {MODEL} --key-file headed.csv", "--key-file headed.csv one line", id="a key of several lines"),
        pytest.param(f"bench {MODEL} --header clé:1", "--header NAME: ASCII", id="a header that HTTP cannot carry"),
        pytest.param(f"bench {MODEL} --body binary", "binary:1: UTF-8", id="a request that is no text"),
        pytest.param(f"bench {MODEL} --body headed.csv", "--body headed.csv JSON", id="a request that is no JSON"),
        pytest.param("bench http://[::1/v2/models/m", "http://[::1/v2/models/m http://HOST:PORT/", id="a URL with half a bracket"),
        pytest.param("bench http://h:99999/v2/models/m", "http://h:99999/v2/models/m http://HOST:PORT/", id="a port above all"),
        pytest.param("cost --metrics http://[::1", "--metrics http://[::1 http://localhost:9090", id="metrics at half a bracket"),
        pytest.param("cost --metrics http://127.0.0.1:PORT", "http://127.0.0.1:PORT refused", id="metrics where nobody is"),
        pytest.param("cost --prometheus http://127.0.0.1:PORT", "http://127.0.0.1:PORT refused", id="no Prometheus there"),
        pytest.param("cost --prices binary", "binary:1: UTF-8", id="prices that are no text"),
        pytest.param("cost --prices open.yaml", "open.yaml:3: YAML", id="prices with an open brace"),
        pytest.param("trace --file binary", "binary line 1 JSON OTLP", id="traces that are no text"),
        pytest.param("trace --file text.json", "text.json line 1 OTLP", id="traces that are another document"),
        pytest.param("run --ray-token-file binary", "binary:1: UTF-8", id="a token that is no text"),
        pytest.param("run --state-dir empty/state", "empty/state --state-dir", id="a state folder below a file"),
        pytest.param("get --state-dir damaged", "damaged/cluster.db damaged move apply again", id="a store that is damaged"),
        pytest.param("get --kubeconfig binary", "binary kubeconfig", id="a kubeconfig that is no text"),
        pytest.param("get --kubeconfig open.yaml", "open.yaml kubeconfig", id="a kubeconfig with an open brace"),
        pytest.param("get --kubeconfig text.json", "text.json kubeconfig", id="a kubeconfig that is another document"),
        pytest.param("apply model.yaml", "penstock apply -f model.yaml", id="an apply without -f"),
        pytest.param("run my.pt2", "my.pt2 model manifest optimize", id="a model that must be optimized first, as a manifest"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("files")
def test_a_mistake_is_told_with_its_place_and_a_remedy(typed: str, facts: str) -> None:
    port = str(free_port())
    result = CliRunner().invoke(
        app, typed.replace("PORT", port).split() if "127.0.0.1:PORT" in typed else typed.split()
    )
    assert isinstance(result.exception, PenstockError), result.exception
    assert_tells(result.exception.message, facts.replace(":PORT", f":{port}") if "127.0.0.1:PORT" in facts else facts)


@pytest.mark.parametrize(
    ("variable", "value", "typed"),
    [
        ("PENSTOCK_API_KEY", "clé", f"bench {MODEL}"),
        ("PENSTOCK_PROMETHEUS_TOKEN", "clé", "cost --prometheus http://127.0.0.1:9"),
        ("KUBECONFIG", "/absent/config", "get"),
    ],
)
@pytest.mark.usefixtures("files")
def test_a_wrong_value_in_the_environment_is_told_with_where_it_stands(
    variable: str, value: str, typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    result = CliRunner().invoke(app, typed.split())
    assert isinstance(result.exception, PenstockError), result.exception
    assert_tells(result.exception.message, value if variable == "KUBECONFIG" else f"{variable} ASCII")


def test_where_our_letters_cannot_be_written_the_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii", write_through=True))
    monkeypatch.setattr(sys, "argv", ["penstock", "bench", "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert b"(?/v2/models/NAME)" in written.getvalue()


@pytest.mark.parametrize("port", ["0", "-1", "65536"])
def test_a_port_that_there_cannot_be_is_refused_before_anything_starts(port: str, files: Path) -> None:
    result = CliRunner().invoke(app, ["run", "--port", port])
    assert result.exit_code == 2
    assert_tells(result.output, "--port")
    assert not (files / "state").exists()


@pytest.mark.parametrize("command", [["run"], ["apply", "-f"], ["validate"]])
def test_where_a_model_is_named_in_a_manifests_place_a_manifest_of_it_is_shown(command: list[str], files: Path) -> None:
    result = CliRunner().invoke(app, [*command, "my model.onnx"])
    assert isinstance(result.exception, PenstockError), result.exception
    told, _, manifest = result.exception.message.partition("\n\n")
    assert_tells(told, "model.onnx manifest")
    verdict = validate_text(manifest, "shown")
    assert not verdict.problems
    (document,) = verdict.documents
    assert document.manifest["spec"]["model"]["storageUri"] == (files / "my model.onnx").as_uri()
