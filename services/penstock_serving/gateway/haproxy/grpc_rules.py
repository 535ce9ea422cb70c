"""HAProxy's rules on calls of gRPC: which model one is meant for, and how it is told what HAProxy itself answers.

A call becomes a request of REST's form: its path says what its message says. So who may ask, how often, where it goes and who
holds it is decided by the same rules for both. The path that the client asked for goes on in a header.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

from penstock.protocol.server import REPOSITORY_INDEX, TRACE_SETTING
from penstock_serving.gateway.settings import GatewaySettings
from penstock_serving.rpc.codes import PLAIN_CHARACTERS, STATUS_CODES, RpcCode
from penstock_serving.rpc.names import HEALTH, INFERENCE

CALL: Final = "txn.rpc"
"""HAProxy's variable: the path that the client of a call asked for."""
CALL_HEADER: Final = "x-penstock-call"
"""The same, told to who answers; set by HAProxy alone."""
NAMESPACE_METADATA: Final = "penstock-namespace"
MODEL_METADATA: Final = "penstock-model"
"""What clients may send along: for messages that do not say it, since they are compressed."""
_OF_MODEL: Final = "txn.rpc_of_model"
"""HAProxy's variable: the call names a model, or has to."""
HTTP2: Final = "http2"
"""The table in which HAProxy counts requests that came over HTTP/2."""
_OF_MODELS: Final = f"/{INFERENCE}/Model"
_ENOUGH_BYTES: Final = 256
"""A message's first bytes, in which its model's name stands whole unless that is very long."""
_NAME: Final = "^[-A-Za-z0-9._]{1,253}$"
"""What `penstock.routing.validation` lets names be made of."""
_CONTENT: Final = r"^application/grpc([+]proto)?(;.*)?$"
"""What a call's content is; another form of gRPC's, such as browsers' `application/grpc-web`, is another protocol."""
_BEGINNINGS: Final = "path_beg /inference. /grpc."
_INDEX: Final = f"/{INFERENCE}/RepositoryIndex"
_TRACES: Final = f"/{INFERENCE}/TraceSetting"
_SERVER_PATHS: Final = {
    f"/{INFERENCE}/ServerLive": "/v2/health/live",
    f"/{INFERENCE}/ServerReady": "/v2/health/ready",
    f"/{HEALTH}/Check": "/v2/health/ready",
    f"/{HEALTH}/Watch": "/v2/health/ready",
    _TRACES: TRACE_SETTING,
}
_MODEL_PATHS: Final = {
    "ModelReady": "/ready",
    "ModelMetadata": "",
    "ModelConfig": "/config",
    "ModelStatistics": "/stats",
    "TraceSetting": TRACE_SETTING.removeprefix("/v2"),
}
"""What follows a model's path by method; an inference where nothing is said."""


def mark_rules() -> Iterator[str]:
    """They come before whatever may refuse a call."""
    yield f"  http-request set-var({CALL}) path if {{ {_BEGINNINGS} }} {{ req.hdr(content-type) -m reg {_CONTENT} }}"


def call_rules(settings: GatewaySettings) -> Iterator[str]:
    """What a call asks for, as a path of REST's form."""
    yield f"  acl rpc var({CALL}) -m found"
    other = reply_words(
        415, "this is a path of gRPC's: its calls have the content-type application/grpc", RpcCode.INVALID_ARGUMENT
    )
    yield f"  http-request return status 415 {other} if !rpc {{ {_BEGINNINGS} }}"
    yield f"  http-request set-var({_OF_MODEL}) bool(1) if {{ var({CALL}) -m beg {_OF_MODELS} }}"
    yield f"  acl rpc_of_model var({_OF_MODEL}) -m found"
    yield "  http-request set-path /v2 if rpc !rpc_of_model"
    for asked, path in _SERVER_PATHS.items():
        yield f"  http-request set-path {path} if rpc {{ var({CALL}) -m str {asked} }}"
    yield from _name_rules(settings)
    yield from _trace_rules(settings)
    yield from _place_rules(settings)
    yield from _path_rules()


def http2_rules(settings: GatewaySettings) -> Iterator[str]:
    """A connection of HTTP/2 carries any number of requests, which the bounds on connections do not hold."""
    if settings.http2:
        yield f"  http-request track-sc6 int(2) table {HTTP2} if {{ fc_http_major 2 }}"
        yield f"  http-request deny deny_status 429 if {{ sc_conn_cur(6) gt {settings.requests_over_http2} }}"


def _name_rules(settings: GatewaySettings) -> Iterator[str]:
    """`txn.named` and `txn.version`, from the message. A stream may say nothing more until it is answered."""
    seconds = _wait(settings)
    yield f"  acl rpc_stream var({CALL}) -m end /ModelStreamInfer"
    yield f"  http-request wait-for-body time {seconds} at-least {_ENOUGH_BYTES} if rpc_of_model !rpc_stream"
    yield f"  http-request wait-for-body time {seconds} at-least 1 if rpc_of_model rpc_stream"
    # What is compressed may look like a name by chance.
    yield "  acl rpc_packed req.body,bytes(0,1),hex -m str 01"
    yield "  http-request set-var(txn.named) req.body,bytes(5),protobuf(1) if rpc_of_model !rpc_packed"
    yield "  acl rpc_named var(txn.named) -m found"
    # A first piece may hold a part of the name alone.
    yield f"  http-request wait-for-body time {seconds} at-least 600 if rpc_of_model !rpc_named !rpc_packed"
    yield "  http-request set-var(txn.named) req.body,bytes(5),protobuf(1) if rpc_of_model !rpc_named !rpc_packed"
    yield f"  http-request set-var(txn.named) req.hdr({MODEL_METADATA}) if rpc_of_model !rpc_named"
    yield "  http-request set-var(txn.version) req.body,bytes(5),protobuf(2) if rpc_of_model !rpc_packed"
    packed = f"the message is compressed, so that nobody can read which model it is for: name that in the metadata {MODEL_METADATA}"
    told = reply_words(404, packed, RpcCode.INVALID_ARGUMENT)
    yield f"  http-request return status 404 {told} if rpc_of_model rpc_packed !rpc_named"


def _trace_rules(settings: GatewaySettings) -> Iterator[str]:
    """A call for trace settings is a model's where it names one, which it need not."""
    yield f"  acl rpc_traces var({CALL}) -m str {_TRACES}"
    yield f"  http-request wait-for-body time {_wait(settings)} at-least {_ENOUGH_BYTES} if rpc_traces"
    yield "  http-request set-var(txn.named) req.body,bytes(5),protobuf(2) if rpc_traces !rpc_packed"
    yield f"  http-request set-var({_OF_MODEL}) bool(1) if rpc_traces {{ var(txn.named) -m len gt 0 }}"


def _place_rules(settings: GatewaySettings) -> Iterator[str]:
    """`txn.named` without a namespace, and `txn.place`, which is the namespace: what is said nearest to the model counts."""
    yield "  acl rpc_placed var(txn.place) -m found"
    yield "  acl rpc_qualified var(txn.named) -m sub /"
    yield "  http-request set-var(txn.place) var(txn.named),field(1,/) if rpc_qualified"
    yield "  http-request set-var(txn.named) var(txn.named),field(2,/,0) if rpc_qualified"
    yield f"  http-request set-var(txn.place) req.hdr({NAMESPACE_METADATA}) if rpc !rpc_placed"
    # Of an authority, the first label is a namespace where that has such a model.
    label = "req.hdr(host),field(1,.)"
    known = f"{{ {label},concat(/,txn.named),map_str({settings.layout.map}) -m found }}"
    yield f"  http-request set-var(txn.place) {label} if rpc_of_model !rpc_placed {known}"
    yield f"  http-request set-var(txn.place) str({settings.default_namespace}) if rpc !rpc_placed"


def _path_rules() -> Iterator[str]:
    """What stands in a path has to be what names are made of: it goes on as HTTP/1.1."""
    yield "  acl rpc_versioned var(txn.version) -m len gt 0"
    wrong = "the message names no model: its model_name must be a model's name, or NAMESPACE/NAME"
    for test in (
        f"rpc_of_model !{{ var(txn.named) -m reg {_NAME} }}",
        f"rpc !{{ var(txn.place) -m reg {_NAME} }}",
        f"rpc_versioned !{{ var(txn.version) -m reg {_NAME} }}",
    ):
        yield f"  http-request return status 404 {reply_words(404, wrong, RpcCode.INVALID_ARGUMENT)} if {test}"
    yield "  http-request set-var-fmt(txn.base) /%[var(txn.place)]/v2/models/%[var(txn.named)] if rpc_of_model"
    yield "  http-request set-var-fmt(txn.base) %[var(txn.base)]/versions/%[var(txn.version)] if rpc_versioned"
    # The log counts by it.
    yield "  http-request set-var-fmt(txn.key) %[var(txn.place)]/%[var(txn.named)] if rpc_of_model"
    yield "  http-request set-var-fmt(txn.key) %[var(txn.key)]/%[var(txn.version)] if rpc_versioned"
    yield f"  http-request set-path /%[var(txn.place)]{REPOSITORY_INDEX} if {{ var({CALL}) -m str {_INDEX} }}"
    others = []
    for method, path in _MODEL_PATHS.items():
        asked = f"{{ var({CALL}) -m end /{method} }}"
        yield f"  http-request set-path %[var(txn.base)]{path} if rpc_of_model {asked}"
        others.append(f"!{asked}")
    yield f"  http-request set-path %[var(txn.base)]/infer if rpc_of_model {' '.join(others)}"


def call_header_rules() -> Iterator[str]:
    """They come after what takes away the headers that HAProxy alone sets."""
    yield f"  http-request set-header {CALL_HEADER} %[var({CALL})] if rpc"


def buffering_rules(settings: GatewaySettings) -> Iterator[str]:
    """Of a backend of replicas: they are sent what is whole, or fills a buffer, so that what can fail has failed. Not streams."""
    yield f"  http-request wait-for-body time {_wait(settings)} unless {{ var({CALL}) -m end /ModelStreamInfer }}"


def _wait(settings: GatewaySettings) -> str:
    return f"{max(1, round(settings.header_timeout_seconds * 1000))}ms"


def answer_rules() -> Iterator[str]:
    """Whoever answers a call says by HTTP's status what became of it, for the log; for its client, all is in gRPC's own.

    They come last of the rules on answers. What has an error's status and none of gRPC's stays as it is: clients go by it
    then, but would take a 200 for an answer that was cut off.
    """
    yield "  http-after-response allow unless rpc"
    yield "  http-after-response allow if !{ status 200 } !{ res.hdr(grpc-status) -m found }"
    yield "  http-after-response set-var(txn.told) status if !{ status 200 }"
    yield "  http-after-response set-status 200"
    yield "  http-after-response set-header content-type application/grpc"


def reply_words(status: int, message: str, code: RpcCode | None = None) -> str:
    """What a reply of HAProxy's own holds: a document, or of a call gRPC's status.

    Args:
        status: HTTP's.
        message: an error's.
        code: gRPC's; None: by the status.
    """
    body = quote_word(_choice("", json.dumps({"error": message})))
    told = STATUS_CODES[status] if code is None else code
    words = quote(message, safe=PLAIN_CHARACTERS.replace("'", ""))
    return (
        f"content-type application/json lf-string {body} hdr grpc-status {quote_word(_choice(str(int(told)), ''))} "
        f"hdr grpc-message {quote_word(_choice(words, ''))}"
    )


def _choice(call: str, other: str) -> str:
    """What is written of a call, and what of anything else. An apostrophe would end the text; a percent sign is one here."""
    texts = (text.replace("'", "\\u0027") for text in (call, other))
    return "%[var({}),length,bool,iif('{}','{}')]".format(f"{CALL},''", *texts)


def quote_word(text: str) -> str:
    """A word of HAProxy's configuration."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
