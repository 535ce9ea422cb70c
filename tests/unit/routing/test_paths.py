from __future__ import annotations

import pytest

from penstock.errors import Invalid
from penstock_serving.gateway.table.paths import ModelOperation, ModelPath, parse_path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2/models/m", ModelPath(("ns", "m"), None, ModelOperation.METADATA)),
        ("/v2/models/m/ready", ModelPath(("ns", "m"), None, ModelOperation.READY)),
        ("/v2/models/m/infer", ModelPath(("ns", "m"), None, ModelOperation.INFER)),
        ("/v2/models/m/versions/3", ModelPath(("ns", "m"), "3", ModelOperation.METADATA)),
        ("/v2/models/m/versions/3/ready", ModelPath(("ns", "m"), "3", ModelOperation.READY)),
        ("/v2/models/m/versions/3/infer", ModelPath(("ns", "m"), "3", ModelOperation.INFER)),
        ("/v2/models/m/config", ModelPath(("ns", "m"), None, ModelOperation.CONFIGURATION)),
        ("/v2/models/m/versions/3/config", ModelPath(("ns", "m"), "3", ModelOperation.CONFIGURATION)),
        ("/v2/models/m/trace/setting", ModelPath(("ns", "m"), None, ModelOperation.TRACE_SETTING)),
        ("/v2/models/m/versions/3/trace/setting", ModelPath(("ns", "m"), "3", ModelOperation.NOTHING)),
        ("/v2/models/m/trace", ModelPath(("ns", "m"), None, ModelOperation.NOTHING)),
        ("/v2/models/m/", ModelPath(("ns", "m"), None, ModelOperation.NOTHING)),
        ("/v2/models/m/stats", ModelPath(("ns", "m"), None, ModelOperation.STATISTICS)),
        ("/v2/models/m/infer/", ModelPath(("ns", "m"), None, ModelOperation.NOTHING)),
        ("/v2/models/m/x/infer", ModelPath(("ns", "m"), None, ModelOperation.NOTHING)),
        ("/v2/models/m/versions", ModelPath(("ns", "m"), None, ModelOperation.NOTHING)),
        ("/v2/models/m/versions/", ModelPath(("ns", "m"), "", ModelOperation.METADATA)),
        ("/v2/models/m/Versions/3/infer", ModelPath(("ns", "m"), None, ModelOperation.NOTHING)),
        ("/ns/v2/models/m/versions/3/infer", ModelPath(("ns", "m"), "3", ModelOperation.INFER)),
        ("/other/v2/models/m/infer", None),
        ("/ns/ns/v2/models/m/infer", None),
        ("/v2/models/", None),
        ("/v2//models/m", None),
        ("//v2/models/m", None),
        ("/v2/health/live", None),
        ("/v2/repository/index", None),
        ("/v2/trace/setting", None),
        ("/", None),
    ],
)
def test_the_model_in_a_path(path: str, expected: ModelPath | None) -> None:
    assert parse_path("ns", path) == expected


@pytest.mark.parametrize(
    "path",
    [
        "/%762/models/m/infer",
        "/v2/mod%65ls/m/infer",
        "/v2/models/%6d/infer",
        "/v2/models/a%2Fb/ready",
        "/v2%2fmodels/m/infer",
        "/v2/models/m/%76ersions/3/infer",
        "/v2/models/m/versions/%33/infer",
        "/v2/health/%6cive",
    ],
)
def test_a_path_is_read_as_it_came_over_the_wire(path: str) -> None:
    with pytest.raises(Invalid, match="without percent-encoding"):
        parse_path("ns", path)
