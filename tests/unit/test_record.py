import itertools
import time
from uuid import RFC_4122

import msgspec
import pytest

from gateway.errors import CipherError
from gateway.log.cipher import Keyring
from gateway.log.record import decode, encode, new_id
from tests.factories import demonstration, invocation

KEYS = Keyring.of(bytes(32))


def test_a_record_survives_its_line() -> None:
    record = invocation(tags={"task": "refund"}, sse='data: {"a":1}\n\n')

    line = encode(record)

    assert line.count(b"\n") == 1
    assert decode(line.strip()) == record


def test_a_pretty_printed_body_stays_on_one_line_with_its_meaning() -> None:
    record = invocation(request=msgspec.Raw(b'{\n "model": "m",\r\n "messages": []\n}'))

    line = encode(record)

    assert line.count(b"\n") == 1
    assert b"\r" not in line
    assert msgspec.json.decode(decode(line.strip()).request) == {"model": "m", "messages": []}


def test_a_record_survives_its_sealed_line_and_is_not_in_it() -> None:
    record = invocation(task="a-secret-task", request=msgspec.Raw(b'{\n"a": 1}'))

    line = encode(record, KEYS.spool)

    assert line.count(b"\n") == 1
    assert b"a-secret-task" not in line
    assert decode(line.strip(), KEYS.spool) == record


def test_a_sealed_line_without_its_key_says_which_key_to_set() -> None:
    line = encode(invocation(), KEYS.spool).strip()

    with pytest.raises(CipherError, match="RATCHET_ENCRYPTION_KEY"):
        decode(line)


def test_a_plain_line_is_read_although_there_is_a_key() -> None:
    record = demonstration(new_id(), order="7")

    assert decode(encode(record).strip(), KEYS.spool) == record


def test_damage_that_is_still_json_is_found() -> None:
    line = encode(invocation(task="refund")).strip()

    with pytest.raises(msgspec.DecodeError, match="checksum"):
        decode(line.replace(b"refund", b"refunk"))


def test_ids_are_version_7_and_sort_by_time() -> None:
    ids = [new_id() for _ in range(1000)]

    assert {one.version for one in ids} == {7}
    assert {one.variant for one in ids} == {RFC_4122}
    assert sum(a > b for a, b in itertools.pairwise(ids)) < 100  # some share a quarter microsecond
    assert abs(ids[0].int >> 80) - time.time() * 1000 < 1000
