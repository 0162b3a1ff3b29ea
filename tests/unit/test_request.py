import json

import pytest

from gateway.api.request import parse
from gateway.errors import InvalidRequest


def body(**fields: object) -> bytes:
    return json.dumps({"model": "m", "messages": [{}]} | fields).encode()


def test_the_deciding_fields_are_read_and_the_rest_is_left_alone() -> None:
    request = parse(body(user="ann", store=False, metadata={"task": "t"}, anything={"at": "all"}))

    assert (request.user, request.store, request.metadata) == ("ann", False, {"task": "t"})


def test_metadata_within_openais_limits_is_taken() -> None:
    most = {f"{n:064}": "é" * 512 for n in range(16)}

    assert parse(body(metadata=most)).metadata == most


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: ""}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"metadata": {"k": 1}}, "metadata"),
        ({"store": "yes"}, "store"),
        ({"user": 7}, "user"),
    ],
)
def test_what_is_beyond_them_is_refused_by_its_name(fields: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(body(**fields))

    assert refused.value.param == param


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity"])
def test_a_number_that_no_float_holds_is_refused(number: str) -> None:
    with pytest.raises(InvalidRequest, match="not valid JSON"):
        parse(body(temperature=0.5).replace(b"0.5", number.encode()))
