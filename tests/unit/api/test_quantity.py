from __future__ import annotations

from decimal import Decimal

import pytest
from tests.telling import telling

from penstock.api.quantity import is_quantity, parse_quantity
from penstock.errors import Invalid


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("0", "0", id="zero"),
        pytest.param("2", "2", id="a whole number"),
        pytest.param("0.5", "0.5", id="a decimal"),
        pytest.param(".5", "0.5", id="a decimal without its zero"),
        pytest.param("1.", "1", id="a dot at the end"),
        pytest.param("+3", "3", id="a plus sign"),
        pytest.param("-3", "-3", id="a minus sign"),
        pytest.param("500m", "0.5", id="thousandths"),
        pytest.param("7u", "0.000007", id="millionths"),
        pytest.param("7n", "0.000000007", id="billionths"),
        pytest.param("2k", "2000", id="thousands"),
        pytest.param("2M", "2000000", id="millions"),
        pytest.param("2G", "2000000000", id="billions"),
        pytest.param("2T", "2000000000000", id="trillions"),
        pytest.param("1P", "1e15", id="P"),
        pytest.param("1E", "1e18", id="E is a suffix where no digits follow"),
        pytest.param("1Ki", "1024", id="1024"),
        pytest.param("1.5Mi", "1572864", id="one and a half times 1024 squared"),
        pytest.param("1Gi", "1073741824", id="1024 cubed"),
        pytest.param("1Ti", "1099511627776", id="1024 to the fourth"),
        pytest.param("1Pi", "1125899906842624", id="1024 to the fifth"),
        pytest.param("1Ei", "1152921504606846976", id="1024 to the sixth"),
        pytest.param("1e3", "1000", id="an exponent"),
        pytest.param("1E3", "1000", id="an exponent in capitals"),
        pytest.param("12e-3", "0.012", id="a negative exponent"),
    ],
)
def test_a_quantity_has_the_value_that_kubernetes_gives_it(text: str, value: str) -> None:
    assert parse_quantity(text) == Decimal(value)
    assert is_quantity(text)


@pytest.mark.parametrize(
    "text", ["", "m", "1 Gi", "1GB", "1gi", "1KI", "1K", "--1", "0x10", "1_000", "one", "1e", "1Gi\n", "٣", "1.2.3"]
)
def test_what_kubernetes_refuses_is_refused(text: str) -> None:
    assert not is_quantity(text)
    with pytest.raises(Invalid, match=telling("quantity number")):
        parse_quantity(text)
