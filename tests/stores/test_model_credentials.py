"""What of a Secret reaches the process that fetches, and what of this process's environment."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.stores.hub_standin import HubStandIn
from tests.stores.web_server import FolderServer, serving
from tests.telling import telling

from penstock.api.conditions import Reason
from penstock.errors import Invalid, Unavailable
from penstock.serving.mounts import CREDENTIALS_VARIABLE
from penstock_runtime import downloading
from penstock_runtime.credentials import environment_with
from penstock_runtime.fetching import fetch_in_child

NOBODY = {"AWS_EC2_METADATA_DISABLED": "true", "NO_GCE_CHECK": "true"}


def secret(root: Path, keys: Mapping[str, str], name: str = "store") -> dict[str, str]:
    """Mount a Secret; the environment that says where."""
    (root / name).mkdir(parents=True)
    for key, value in keys.items():
        (root / name / key).write_text(value)
    return {CREDENTIALS_VARIABLE: str(root)}


@pytest.mark.parametrize(
    ("keys", "given"),
    [
        ({"AWS_ACCESS_KEY_ID": "a\n", "AWS_SECRET_ACCESS_KEY": "b"}, {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}),
        ({"HF_TOKEN": "hf_x"}, {"HF_TOKEN": "hf_x"}),
        ({"GOOGLE_APPLICATION_CREDENTIALS": "{}"}, {"GOOGLE_APPLICATION_CREDENTIALS": "{root}/store/GOOGLE_APPLICATION_CREDENTIALS"}),
        ({".dockerconfigjson": "{}"}, {"OCI_DOCKER_CONFIG": "{root}/store/.dockerconfigjson"}),
        ({"LD_PRELOAD": "/x.so", "PATH": "/x", "PYTHONPATH": "/x", "HF_TOKEN": "t"}, {"HF_TOKEN": "t"}),
        ({"AWS_CONFIG_FILE": "[default]\ncredential_process = /bin/sh", "HF_TOKEN": "t"}, {"HF_TOKEN": "t"}),
    ],
    ids=[
        "values, without the newline at their end", "a token", "a file by its path", "a Docker config by its path",
        "nothing that changes what is run", "nothing that names a program",
    ],
)  # fmt: skip
def test_known_keys_become_variables(tmp_path: Path, keys: dict[str, str], given: dict[str, str]) -> None:
    base = {"PATH": "/bin", **secret(tmp_path, keys)}
    wanted = {name: value.replace("{root}", str(tmp_path)) for name, value in given.items()}
    assert environment_with("store", base) == base | wanted | NOBODY


def test_with_a_secret_the_pods_own_credentials_are_left_out(tmp_path: Path) -> None:
    own = {"AWS_SESSION_TOKEN": "of another key", "AWS_PROFILE": "x", "HF_TOKEN": "theirs", "HOME": "/"}
    base = {**own, **secret(tmp_path, {"AWS_ACCESS_KEY_ID": "a"})}
    assert environment_with("store", base) == {
        "HOME": "/",
        CREDENTIALS_VARIABLE: str(tmp_path),
        "AWS_ACCESS_KEY_ID": "a",
        **NOBODY,
    }
    assert environment_with(None, base) == base


class Cloud(ThreadingHTTPServer):
    """What gives a pod its identity: EKS's agent, and the metadata servers of AWS and Google. Remembers who asks."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _CloudHandler)
        self.asked: list[str] = []

    def environment(self) -> dict[str, str]:
        """That the libraries find it by."""
        at = f"127.0.0.1:{self.server_port}"
        return {
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{at}/aws", "AWS_METADATA_SERVICE_NUM_ATTEMPTS": "1",
            "GCE_METADATA_HOST": at, "GCE_METADATA_IP": at, "GCE_METADATA_DETECT_RETRIES": "1",
        }  # fmt: skip


class _CloudHandler(BaseHTTPRequestHandler):
    server: Cloud

    def log_message(self, *_: object) -> None:
        pass

    def do_PUT(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        body = b'{"AccessKeyId": "pod", "SecretAccessKey": "pod", "Token": "pod", "Expiration": "2100-01-01T00:00:00Z"}'
        self.send_response(200 if self.path == "/eks" else 404)
        self.send_header("Metadata-Flavor", "Google")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


WHO = {
    "AWS": "import botocore.session as s; found = s.Session().get_credentials(); print(found and found.access_key)",
    "Google": "import gcsfs; print(gcsfs.GCSFileSystem(skip_instance_cache=True).credentials.credentials)",
}
"""Programs that print who they are to a store."""


@pytest.mark.parametrize(
    ("library", "more"),
    [
        ("AWS", {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://{cloud}/eks", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "t"}),
        ("AWS", {}),
        ("Google", {}),
    ],
    ids=["EKS Pod Identity", "the metadata server of AWS", "Google's metadata server"],
)
def test_with_a_secret_that_has_no_keys_nobody_asks_the_cloud_who_the_pod_is(
    tmp_path: Path, library: str, more: dict[str, str]
) -> None:
    with serving(Cloud()) as cloud:
        address = f"127.0.0.1:{cloud.server_port}"
        pod = {name: value.replace("{cloud}", address) for name, value in more.items()} | cloud.environment()
        base = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **pod, **secret(tmp_path / "s", {"HF_TOKEN": "x"})}

        def who(environment: Mapping[str, str]) -> str:
            return subprocess.run(
                [sys.executable, "-c", WHO[library]], env=dict(environment), check=True, capture_output=True, text=True
            ).stdout.strip()

        who(base)
        assert cloud.asked != []  # the pod's own credentials are asked for where no Secret is named
        cloud.asked.clear()
        assert who(environment_with("store", base)) == "None"
        assert cloud.asked == []


@pytest.mark.parametrize("name", ["another", "empty", "absent", "..", "../elsewhere/store", "", "a/b"])
def test_a_secret_that_is_not_mounted_is_not_found(tmp_path: Path, name: str) -> None:
    (tmp_path / "root" / "empty").mkdir(parents=True)
    # As the kubelet mounts an optional Secret that is not there.
    (tmp_path / "root" / "absent" / "..2026_01_01").mkdir(parents=True)
    (tmp_path / "root" / "absent" / "..data").symlink_to("..2026_01_01")
    (tmp_path / "elsewhere" / "store").mkdir(parents=True)
    (tmp_path / "elsewhere" / "store" / "HF_TOKEN").write_text("x")
    with pytest.raises(Invalid) as caught:
        environment_with(name, {CREDENTIALS_VARIABLE: str(tmp_path / "root")})
    assert caught.value.reason == Reason.SECRET_NOT_FOUND


TOKEN, LOGIN = {"HTTP_BEARER_TOKEN": "t"}, {"OCI_USERNAME": "u", "OCI_PASSWORD": "p"}
BOUND = [
    ("the host that is named", TOKEN, "a.example.com", "https://a.example.com/m.onnx", True),
    ("one of several", TOKEN, "b.example.com, a.example.com\n", "https://a.example.com/m.onnx", True),
    ("whatever its case", TOKEN, "A.Example.com", "https://a.EXAMPLE.com/m.onnx", True),
    ("a host below one that is named so", TOKEN, "*.example.com", "https://a.example.com/m.onnx", True),
    ("with its port", TOKEN, "a.example.com:8443", "https://a.example.com:8443/m.onnx", True),
    ("with the scheme's own port", TOKEN, "a.example.com:443", "https://a.example.com/m.onnx", True),
    ("by its address", TOKEN, "[2001:db8::1]:8080", "http://[2001:db8::1]:8080/m.onnx", True),
    ("a registry", LOGIN, "registry.example.com:5000", "oci://registry.example.com:5000/m:1", True),
    ("no host at all", TOKEN, None, "https://a.example.com/m.onnx", False),
    ("another host", TOKEN, "a.example.com", "https://evil.example.net/m.onnx", False),
    ("a host that begins alike", TOKEN, "a.example.com", "https://a.example.com.evil.net/m.onnx", False),
    ("a host that ends alike", TOKEN, "*.example.com", "https://evilexample.com/m.onnx", False),
    ("the domain itself, where those below are named", TOKEN, "*.example.com", "https://example.com/m.onnx", False),
    ("a name before an @", TOKEN, "a.example.com", "https://a.example.com@evil.net/m.onnx", False),
    ("another port", TOKEN, "a.example.com", "https://a.example.com:8443/m.onnx", False),
    ("the same host without TLS", TOKEN, "a.example.com", "http://a.example.com/m.onnx", False),
    ("an empty entry", TOKEN, ",", "https:///m.onnx", False),
    ("everything", TOKEN, "*", "https://a.example.com/m.onnx", False),
    ("another registry", LOGIN, "registry.example.com", "oci://evil.example.net/m:1", False),
    (
        "a store whose keys have an endpoint of their own",
        {**TOKEN, "AWS_ACCESS_KEY_ID": "a"},
        None,
        "s3://bucket/m",
        True,
    ),
]


@pytest.mark.parametrize(("keys", "hosts", "uri", "sent"), [row[1:] for row in BOUND], ids=[row[0] for row in BOUND])
def test_a_credential_goes_to_the_hosts_that_its_secret_names(
    tmp_path: Path, keys: dict[str, str], hosts: str | None, uri: str, *, sent: bool
) -> None:
    base = secret(tmp_path, {**keys, **({} if hosts is None else {"hosts": hosts})})
    if sent:
        assert environment_with("store", base, uri).items() >= keys.items()
        return
    with pytest.raises(Invalid, match=telling("add Secret's key 'hosts'")) as caught:
        environment_with("store", base, uri)
    assert caught.value.reason == Reason.STORAGE_DENIED


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for loopback that only who is told trusts, and its key."""
    folder = tmp_path_factory.mktemp("authority")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "ca.crt", folder / "key"


@pytest.fixture(params=["a web server", "the Hub"])
def private(
    request: pytest.FixtureRequest, authority: tuple[Path, Path], tmp_path: Path
) -> Iterator[tuple[str, dict[str, str]]]:
    """A model behind TLS by a private authority, and the rest of the Secret."""
    (tmp_path / "www" / "org" / "m" / "main").mkdir(parents=True)
    (tmp_path / "www" / "org" / "m" / "main" / "model.onnx").write_bytes(b"m")
    hub = request.param == "the Hub"
    server: ThreadingHTTPServer = HubStandIn(tmp_path / "www") if hub else FolderServer(tmp_path / "www")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server):
        address = f"https://127.0.0.1:{server.server_port}"
        yield ("hf://org/m/model.onnx", {"HF_ENDPOINT": address}) if hub else (f"{address}/org/m/main/model.onnx", {})


def test_a_private_authority_is_trusted_by_who_names_it(
    private: tuple[str, dict[str, str]], authority: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "_FIRST_DELAY_SECONDS", 0.01)
    uri, keys = private
    environment = {
        "PENSTOCK_MODEL_CACHE": str(tmp_path / "cache"),
        **secret(tmp_path / "s", {"HTTP_USERNAME": "x", "hosts": urlsplit(uri).netloc, **keys}),
    }
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        fetch_in_child(uri, environment, credentials="store")
    (tmp_path / "s" / "store" / "ca.crt").write_bytes(authority[0].read_bytes())
    with fetch_in_child(uri, environment, credentials="store") as held:
        assert held.path.read_bytes() == b"m"
