"""Requests that two readers could understand differently, sent to both fronts over a socket.

The property: what is answered as a request is what a strict reader of RFC 9112 would take for
one, byte for byte; whatever else came is refused once, and the connection is closed.
"""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.http.exchange import Front, Handler, Request
from tests.fakes.fronts import HOT, PLAIN, Fronts
from tests.fakes.wire import answers

LINE = f"POST {HOT} HTTP/1.1\r\n".encode()
HOST = b"Host: x\r\n"
HEAD = LINE + HOST
PREY = b"GET /ordinary HTTP/1.1\r\nHost: x\r\n\r\n"
"""A second request, hidden in what one reader takes for the body of the first."""


def fixed(body: bytes, *more: bytes, line: bytes = LINE) -> bytes:
    """A request with a Content-Length."""
    return b"%b%b%bContent-Length: %d\r\n\r\n%b" % (line, HOST, b"".join(more), len(body), body)


def lengths(*values: bytes, body: bytes = b"abcde") -> bytes:
    """A request with these Content-Lengths."""
    return HEAD + b"".join(b"Content-Length:%b\r\n" % value for value in values) + b"\r\n" + body


def chunked(body: bytes, *, coding: bytes = b" chunked", more: bytes = b"") -> bytes:
    """A request with this Transfer-Encoding."""
    return HEAD + b"Transfer-Encoding:" + coding + b"\r\n" + more + b"\r\n" + body


WHOLE = b"5\r\nabcde\r\n0\r\n\r\n"

UNDERSTOOD: dict[str, tuple[bytes, list[bytes]]] = {
    "plain": (fixed(b"abcde"), [b"abcde"]),
    "no body": (fixed(b""), [b""]),
    "chunked": (chunked(WHOLE), [b"abcde"]),
    "chunked, in capitals": (chunked(WHOLE, coding=b" CHUNKED"), [b"abcde"]),
    "two chunks": (chunked(b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"), [b"abcde"]),
    "a chunk extension": (chunked(b"5;a=b\r\nabcde\r\n0\r\n\r\n"), [b"abcde"]),
    "trailers": (chunked(b"5\r\nabcde\r\n0\r\nX-A: b\r\n\r\n"), [b"abcde"]),
    "capital hex": (chunked(b"A\r\nabcdefghij\r\n0\r\n\r\n"), [b"abcdefghij"]),
    "leading zeros of a length": (lengths(b" 005"), [b"abcde"]),
    "no space before a value": (lengths(b"5"), [b"abcde"]),
    "space after a value": (lengths(b" 5 \t"), [b"abcde"]),
    "an empty value": (fixed(b"abcde", b"X-A:\r\n"), [b"abcde"]),
    "a header twice": (fixed(b"abcde", b"X-A: 1\r\n", b"X-A: 2\r\n"), [b"abcde"]),
    "obs-text in a value": (fixed(b"abcde", b"X-A: \xe9\r\n"), [b"abcde"]),
    "an empty line before": (b"\r\n" + fixed(b"abcde"), [b"abcde"]),
    "two in one": (fixed(b"one") + fixed(b"two"), [b"one", b"two"]),
    "many in one": (b"".join(fixed(b"%d" % n) for n in range(50)), [b"%d" % n for n in range(50)]),
    "fixed, then chunked": (fixed(b"one") + chunked(WHOLE), [b"one", b"abcde"]),
    "chunked, then fixed": (chunked(WHOLE) + fixed(b"two"), [b"abcde", b"two"]),
    "what looks like a request is a body": (fixed(PREY), [PREY]),
    "what looks like chunks is a body": (fixed(WHOLE), [WHOLE]),
    "an unfinished second": (fixed(b"one") + fixed(b"two")[:-1], [b"one"]),
    "two spaces after the method": (
        fixed(b"abcde", line=LINE.replace(b"POST ", b"POST  ")),
        [b"abcde"],
    ),
    "two spaces before the version": (
        fixed(b"abcde", line=LINE.replace(b" HTTP", b"  HTTP")),
        [b"abcde"],
    ),
    "many headers": (fixed(b"abcde", *(b"X-%d: y\r\n" % n for n in range(300))), [b"abcde"]),
    "a long header": (fixed(b"abcde", b"X-A: " + b"y" * 20_000 + b"\r\n"), [b"abcde"]),
}
"""What is sent, and the bodies of the requests in it."""

REFUSED: dict[str, bytes] = {
    "CL.TE": chunked(b"0\r\n\r\n" + PREY, more=b"Content-Length: 40\r\n"),
    "TE.CL": HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + WHOLE + PREY,
    "TE.CL, lower case": (
        HEAD + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n" + WHOLE + PREY
    ),
    "CL twice, different": lengths(b" 5", b" 40", body=b"abcde" + PREY),
    "CL twice, the same": lengths(b" 5", b" 5"),
    "CL a list": lengths(b" 5, 5"),
    "CL a list of different": lengths(b" 5, 40", body=b"abcde" + PREY),
    "CL with a plus": lengths(b" +5"),
    "CL negative": lengths(b" -5"),
    "CL hex": lengths(b" 0x5"),
    "CL with an underscore": lengths(b" 1_0", body=b"abcdefghij"),
    "CL a decimal": lengths(b" 5.0"),
    "CL an exponent": lengths(b" 5e0"),
    "CL with a space inside": lengths(b" 5 5", body=b"abcde" * 11),
    "CL empty": lengths(b""),
    "CL quoted": lengths(b' "5"'),
    "CL other digits": lengths(" \u0665".encode()),
    "CL over 64 bits": lengths(b" 18446744073709551621"),
    "CL with a vertical tab": lengths(b" \x0b5"),
    "CL with a form feed": lengths(b" 5\x0c"),
    "CL with a NUL": lengths(b" 5\x00"),
    "TE twice": chunked(WHOLE, more=b"Transfer-Encoding: identity\r\n"),
    "TE chunked twice": chunked(WHOLE, coding=b" chunked, chunked"),
    "TE not chunked last": chunked(WHOLE, coding=b" chunked, identity"),
    "TE identity": chunked(WHOLE, coding=b" identity"),
    "TE unknown": chunked(WHOLE, coding=b" xchunked"),
    "TE quoted": chunked(WHOLE, coding=b' "chunked"'),
    "TE with a vertical tab": chunked(WHOLE, coding=b" \x0bchunked"),
    "TE with a NUL": chunked(WHOLE, coding=b" chunked\x00"),
    "TE folded": chunked(WHOLE, coding=b"\r\n chunked"),
    "TE with a space before the colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n" + WHOLE,
    "TE hidden by a bare CR": HEAD + b"X: y\rTransfer-Encoding: chunked\r\n\r\n" + WHOLE,
    "TE hidden by a bare LF": HEAD + b"X: y\nTransfer-Encoding: chunked\r\n\r\n" + WHOLE,
    "CL hidden by a bare CR": HEAD + b"X: y\rContent-Length: 5\r\n\r\nabcde",
    "CL hidden by a bare LF": HEAD + b"X: y\nContent-Length: 5\r\n\r\nabcde",
    "CL folded": HEAD + b"Content-Length:\r\n 5\r\n\r\nabcde",
    "CL with a space before the colon": HEAD + b"Content-Length : 5\r\n\r\nabcde",
    "CL with a tab before the colon": HEAD + b"Content-Length\t: 5\r\n\r\nabcde",
    "CL after a space": HEAD + b" Content-Length: 5\r\n\r\nabcde",
    "obs-fold": fixed(b"abcde", b"X-A: b\r\n c\r\n"),
    "obs-fold with a tab": fixed(b"abcde", b"X-A: b\r\n\tc\r\n"),
    "folded first header": LINE + b" " + HOST + b"Content-Length: 5\r\n\r\nabcde",
    "bare LF everywhere": fixed(b"abcde").replace(b"\r\n", b"\n"),
    "bare LF after the request line": fixed(b"abcde").replace(b"\r\n", b"\n", 1),
    "bare LF at the end of the head": HEAD + b"Content-Length: 5\r\n\nabcde",
    "bare CR everywhere": fixed(b"abcde").replace(b"\r\n", b"\r"),
    "bare CR in a value": fixed(b"abcde", b"X-A: b\rc\r\n"),
    "two CRs": fixed(b"abcde").replace(b"\r\n", b"\r\r\n"),
    "NUL in a value": fixed(b"abcde", b"X-A: b\x00c\r\n"),
    "NUL in a name": fixed(b"abcde", b"X-\x00A: b\r\n"),
    "NUL in the target": fixed(b"abcde", line=LINE.replace(b"chat", b"ch\x00at")),
    "a control character in a value": fixed(b"abcde", b"X-A: \x1bb\r\n"),
    "DEL in a value": fixed(b"abcde", b"X-A: \x7f\r\n"),
    "no colon": fixed(b"abcde", b"X-A\r\n"),
    "no name": fixed(b"abcde", b": b\r\n"),
    "a name with brackets": fixed(b"abcde", b"X(A): b\r\n"),
    "a name in quotes": fixed(b"abcde", b'"X-A": b\r\n'),
    "a name with obs-text": fixed(b"abcde", b"X-\xe9: b\r\n"),
    "a name with a space": fixed(b"abcde", b"X A: b\r\n"),
    "chunk size with a plus": chunked(b"+5\r\nabcde\r\n0\r\n\r\n"),
    "chunk size with 0x": chunked(b"0x5\r\nabcde\r\n0\r\n\r\n"),
    "chunk size negative": chunked(b"-5\r\nabcde\r\n0\r\n\r\n"),
    "chunk size empty": chunked(b"\r\nabcde\r\n0\r\n\r\n"),
    "chunk size with a space before": chunked(b" 5\r\nabcde\r\n0\r\n\r\n"),
    "chunk size with a space after": chunked(b"5 \r\nabcde\r\n0\r\n\r\n"),
    "chunk size with an underscore": chunked(b"0_5\r\nabcde\r\n0\r\n\r\n"),
    "chunk size over 64 bits": chunked(b"10000000000000005\r\nabcde\r\n0\r\n\r\n"),
    "chunk size ended by a bare LF": chunked(b"5\nabcde\r\n0\r\n\r\n"),
    "chunk size ended by a bare CR": chunked(b"5\rabcde\r\n0\r\n\r\n"),
    "chunk extension with a bare LF": chunked(b"5;a\nb\r\nabcde\r\n0\r\n\r\n"),
    "chunk extension with a bare CR": chunked(b"5;a\rb\r\nabcde\r\n0\r\n\r\n"),
    "chunk extension with a NUL": chunked(b"5;a=\x00\r\nabcde\r\n0\r\n\r\n"),
    "chunk longer than it says": chunked(b"3\r\nabcde\r\n0\r\n\r\n"),
    "chunk ended by a bare LF": chunked(b"5\r\nabcde\n0\r\n\r\n"),
    "chunk ended by nothing": chunked(b"5\r\nabcde0\r\n\r\n"),
    "last chunk ended by a bare LF": chunked(b"5\r\nabcde\r\n0\n\n" + PREY),
    "trailers folded": chunked(b"5\r\nabcde\r\n0\r\nX-A: b\r\n c\r\n\r\n"),
    "HTTP/1.2": fixed(b"abcde", line=LINE.replace(b"1.1", b"1.2")),
    "HTTP/2.0": fixed(b"abcde", line=LINE.replace(b"1.1", b"2.0")),
    "HTTP/0.9": f"POST {HOT}\r\n\r\n".encode(),
    "HTTP/1.10": fixed(b"abcde", line=LINE.replace(b"1.1", b"1.10")),
    "HTTP/01.1": fixed(b"abcde", line=LINE.replace(b"1.1", b"01.1")),
    "http/1.1": fixed(b"abcde", line=LINE.replace(b"HTTP", b"http")),
    "lower-case method": fixed(b"abcde", line=LINE.replace(b"POST", b"post")),
    "unknown method": fixed(b"abcde", line=LINE.replace(b"POST", b"POSTS")),
    "a space before the method": b" " + fixed(b"abcde"),
    "a tab after the method": fixed(b"abcde", line=LINE.replace(b"POST ", b"POST\t")),
    "a space after the version": fixed(b"abcde", line=LINE.replace(b"1.1", b"1.1 ")),
    "a request line alone": b"POST\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40 + b"\r\n\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "garbage": b"\xff\xfe\xfd\r\n\r\n",
    "a head without an end": HEAD + b"X-A: " + b"y" * 300_000,
    "headers without an end": HEAD + b"X-A: y\r\n" * 40_000,
}
"""What is no request."""

CASES = {name: raw for name, (raw, _) in UNDERSTOOD.items()} | REFUSED
SHORT_TIMES = {"header_timeout_s": 0.4, "body_timeout_s": 0.4, "idle_timeout_s": 0.4}


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer: its status and its body."""

    status: int
    body: bytes


def split(sent: bytes) -> list[Answered]:
    """The answers in what a server has sent, all of which say their length."""
    found = []
    while sent:
        head, end, rest = sent.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        assert end, head
        assert length, head
        size = int(length[1])
        assert len(rest) >= size, head
        found.append(Answered(int(head.split()[1]), rest[:size]))
        sent = rest[size:]
    return found


async def exchange(port: int, raw: bytes) -> list[Answered]:
    """What the server answers until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    sent = await reader.read()
    writer.close()
    return split(sent)


async def exchange_all(fronts: Fronts) -> dict[str, list[Answered]]:
    found = await asyncio.gather(*(exchange(fronts.port, raw) for raw in CASES.values()))
    return dict(zip(CASES, found, strict=True))


@pytest.fixture(scope="module", params=[True, False], ids=["fast", "uvicorn"])
def answered(request: pytest.FixtureRequest) -> Iterator[dict[str, list[Answered]]]:
    """The answers to all cases, sent at once."""
    with Fronts(fast=request.param, **SHORT_TIMES) as fronts:
        yield asyncio.run(exchange_all(fronts))


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_every_request_is_read_as_a_strict_reader_reads_it(
    answered: dict[str, list[Answered]], name: str
) -> None:
    bodies = UNDERSTOOD[name][1]

    taken = [answer.body for answer in answered[name] if answer.status == 200]

    assert taken == bodies
    rest = [answer.status for answer in answered[name][len(bodies) :]]
    assert rest == ([408] if name == "an unfinished second" else [])


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_request_is_refused_once(answered: dict[str, list[Answered]], name: str) -> None:
    (answer,) = answered[name]

    assert answer.status in {400, 405, 408, 413}
    assert answer.body.startswith(b'{"error":{')


class Answers:
    """Answers every call at once with its body."""

    def __call__(self, request: Request, front: Front) -> Handler:
        front.answer(200, PLAIN, request.body)
        return self

    def hung_up(self) -> None:
        raise AssertionError("every call is answered before its client can leave")

    def drained(self) -> None:
        pass


async def in_pieces(raw: bytes, cuts: list[int], *, fast: bool) -> list[Answered]:
    edges = [0, *cuts, len(raw)]
    pieces = [raw[start:end] for start, end in pairwise(edges) if start < end]
    return split(await answers(Answers(), pieces, fast=fast))


@given(
    name=st.sampled_from([name for name, raw in CASES.items() if len(raw) < 4000]),
    cuts=st.sets(st.integers(1, 300), max_size=8).map(sorted),
    fast=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_how_a_request_is_cut_into_pieces_changes_nothing(
    name: str, cuts: list[int], fast: bool
) -> None:
    raw = CASES[name]

    whole = asyncio.run(in_pieces(raw, [], fast=fast))
    cut = asyncio.run(in_pieces(raw, [cut for cut in cuts if cut < len(raw)], fast=fast))

    assert cut == whole


@pytest.mark.parametrize("fast", [True, False])
async def test_requests_that_come_byte_by_byte_are_answered_alike(fast: bool) -> None:
    raw = fixed(b"one") + chunked(WHOLE) + fixed(b"two") + fixed(b"three", b"Connection: close\r\n")

    cut = await in_pieces(raw, list(range(1, len(raw))), fast=fast)

    assert [answer.body for answer in cut] == [b"one", b"abcde", b"two", b"three"]
