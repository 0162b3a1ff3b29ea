from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from gateway.log.blank import blank
from gateway.log.cipher import Cipher
from gateway.log.done import keep, kept
from gateway.log.erasure import Erased
from gateway.log.record import Erasure, Feedback, Invocation, Verdict, decode, encode, new_id
from gateway.log.spool import SpoolWriter
from tests.factories import NOW, body, demonstration, invocation

MARKER = "the-secret-of-alice"
CIPHERS: list[Callable[[], Cipher | None]] = [lambda: None, lambda: Cipher(b"k" * 32)]


@pytest.fixture(params=CIPHERS, ids=["plain", "sealed"])
def cipher(request: pytest.FixtureRequest) -> Cipher | None:
    made: Cipher | None = request.param()
    return made


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    for name in ("done", "quarantine"):
        (tmp_path / name).mkdir()
    return tmp_path


def erased(*, scope: str = "rows", **changes: object) -> Erased:
    found = Erased()
    fields = {"id": new_id(), "ts": NOW, "tenant": "default", "scope": scope}
    found.add([msgspec.convert(fields | changes, Erasure)])
    return found


def secret(**changes: object) -> Invocation:
    return invocation(subject_id="5a" * 16, request=body(MARKER), **changes)


def records(content: bytes, cipher: Cipher | None) -> list[object]:
    return [decode(line, cipher) for line in content.splitlines() if not line.isspace()]


def test_erased_lines_of_a_live_segment_become_spaces_and_its_writer_goes_on(
    spool: Path, cipher: Cipher | None
) -> None:
    writer = SpoolWriter(spool, "w0", cipher=cipher)
    other, later = invocation(), secret(ts=NOW + timedelta(seconds=1))
    for record in (secret(), other, secret(), later):
        writer.append(record)
    before = writer.segment.read_bytes()

    blanked = blank(spool, erased(subject_id="5a" * 16), cipher)
    last = invocation()
    writer.append(last)
    writer.close()

    after = writer.segment.read_bytes()
    assert blanked == 2
    assert [len(line) for line in after.splitlines()][:4] == [
        len(line) for line in before.splitlines()
    ]
    assert records(after, cipher) == [other, later, last]


def test_a_kept_segment_that_cannot_be_written_anew_is_told(spool: Path) -> None:
    segment = spool / "w0-1.jsonl"
    segment.write_bytes(encode(secret()))
    keep(segment)
    [one] = kept(spool)
    in_the_way = one.path.with_suffix(".tmp")
    in_the_way.symlink_to("/dev/full")

    with pytest.raises(OSError, match="No space left"):
        blank(spool, erased(subject_id="5a" * 16), None)

    assert MARKER.encode() in one.open().read()


def test_erased_lines_of_a_kept_segment_become_spaces_and_its_age_stays(
    spool: Path, cipher: Cipher | None
) -> None:
    other = invocation()
    segment = spool / "w0-1.jsonl"
    segment.write_bytes(b"".join(encode(one, cipher) for one in (secret(), other)))
    size = segment.stat().st_size
    keep(segment)
    [before] = kept(spool)
    age = before.path.stat().st_mtime_ns

    blanked = blank(spool, erased(subject_id="5a" * 16), cipher)

    [after] = kept(spool)
    content = after.open().read()
    assert blanked == 1
    assert (after.size, len(content), after.path.stat().st_mtime_ns) == (size, size, age)
    assert records(content, cipher) == [other]


def test_a_line_that_loses_only_its_bodies_keeps_its_length(
    spool: Path, cipher: Cipher | None
) -> None:
    chunk = '{"choices":[],"model":"base","usage":{"prompt_tokens":3,"completion_tokens":2}}'
    call = secret(
        stored=True,
        response=msgspec.Raw(b"null"),
        sse=f"data: {chunk}\n\n" * 9,
        verdicts=[Verdict(guard="g", stage="before", action="flag", reason=MARKER, score=0.5)],
    )
    segment = spool / "w0-1.jsonl"
    segment.write_bytes(encode(call, cipher))
    size = segment.stat().st_size

    blank(spool, erased(invocation_id=str(call.id), scope="bodies"), cipher)

    [left] = records(segment.read_bytes(), cipher)
    assert segment.stat().st_size == size
    assert isinstance(left, Invocation)
    assert bytes(left.request).strip() == bytes(left.response) == b"null"
    assert (left.input_tokens, left.output_tokens) == (3, 2)
    assert left.verdicts == [Verdict(guard="g", stage="before", action="flag", score=0.5)]
    assert (left.id, left.subject_id, left.stored, left.train_ok, left.sse) == (
        call.id,
        call.subject_id,
        False,
        False,
        None,
    )


def test_feedback_on_an_erased_call_goes_with_it(spool: Path, cipher: Cipher | None) -> None:
    call = invocation()
    about, other = demonstration(call.id, order="7"), demonstration(new_id(), order="8")
    segment = spool / "w0-1.jsonl"
    segment.write_bytes(encode(about, cipher) + encode(other, cipher))

    blank(spool, erased(invocation_id=str(call.id)), cipher)

    [left] = records(segment.read_bytes(), cipher)
    assert isinstance(left, Feedback)
    assert left.target_id == other.target_id


def test_quarantined_lines_that_name_the_subject_are_cut_out(spool: Path) -> None:
    damaged = encode(secret())[:-30] + b"\n"
    other = b'{"k":"invocation","half\r a line\n'
    file = spool / "quarantine" / "w0-1.jsonl"
    file.write_bytes(damaged + other)

    blanked = blank(spool, erased(subject_id="5a" * 16), None)

    assert blanked == 1
    assert file.read_bytes() == other


def test_a_torn_last_line_is_left_to_its_writer(spool: Path) -> None:
    segment = spool / "w0-1.jsonl"
    torn = encode(secret())[:-1]
    segment.write_bytes(encode(secret()) + torn)

    blank(spool, erased(subject_id="5a" * 16), None)

    assert segment.read_bytes().splitlines()[1] == torn


def test_blanking_twice_finds_nothing_more(spool: Path, cipher: Cipher | None) -> None:
    segment = spool / "w0-1.jsonl"
    segment.write_bytes(encode(secret(), cipher) + encode(invocation(), cipher))
    whom = erased(subject_id="5a" * 16)

    counts = [blank(spool, whom, cipher) for _ in range(2)]

    assert counts == [1, 0]


def test_a_stripped_line_is_not_stripped_again(spool: Path, cipher: Cipher | None) -> None:
    call = secret()
    segment = spool / "w0-1.jsonl"
    segment.write_bytes(encode(call, cipher))
    whom = erased(invocation_id=str(call.id), scope="bodies")

    counts = [blank(spool, whom, cipher) for _ in range(2)]

    assert counts == [1, 0]
