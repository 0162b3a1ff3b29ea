"""Both fronts over real sockets: deadlines, drain, slow readers, clients that leave."""

import re
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from gateway.http.door import BODIES
from gateway.http.exchange import Front
from tests.fakes.fronts import HOT, PLAIN, STRANGER, Fronts

JSON = [(b"content-type", b"application/json")]
ORDINARY = b"GET /ordinary HTTP/1.1\r\nHost: x\r\n\r\n"


def hot(body: bytes = b"{}", *more: bytes) -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b" % (
        HOT.encode(),
        b"".join(more),
        len(body),
        body,
    )


def chunked(body: bytes = b"{}") -> bytes:
    """The same for uvicorn's protocol."""
    return (
        b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
        % (HOT.encode(), len(body), body)
    )


class Client:
    """A socket that reads answers."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=15)
        self._rest = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_until_full(self, data: bytes) -> int:
        """Bytes that the server and the kernel take before they take no more."""
        self.socket.setblocking(False)
        sent = 0
        try:
            while sent < len(data):
                sent += self.socket.send(data[sent:])
        except BlockingIOError:
            pass  # full
        self.socket.settimeout(15)
        return sent

    def until(self, mark: bytes) -> bytes:
        while mark not in self._rest:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(self._rest)
            self._rest += data
        found, _, self._rest = self._rest.partition(mark)
        return found + mark

    def answer(self) -> tuple[int, bytes, bytes]:
        """Status, head, body of the next answer that says its length."""
        head = self.until(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        assert length, head
        size = int(length[1])
        while len(self._rest) < size:
            self._rest += self.socket.recv(65536)
        body, self._rest = self._rest[:size], self._rest[size:]
        return int(head.split()[1]), head, body

    def rest(self) -> bytes:
        """All there is until the server closes."""
        while data := self.socket.recv(65536):
            self._rest += data
        return self._rest


@contextmanager
def client(fronts: Fronts) -> Iterator[Client]:
    one = Client(fronts.port)
    try:
        yield one
    finally:
        one.socket.close()


@pytest.fixture
def fronts() -> Iterator[Fronts]:
    with Fronts() as running:
        yield running


@pytest.fixture(scope="module")
def hasty() -> Iterator[Fronts]:
    """A worker without patience."""
    with Fronts(header_timeout_s=0.3, body_timeout_s=0.3, idle_timeout_s=0.3) as running:
        yield running


@pytest.fixture(scope="module")
def patient_with_bodies() -> Iterator[Fronts]:
    with Fronts(header_timeout_s=0.3, body_timeout_s=600, idle_timeout_s=600) as running:
        yield running


Ask = Callable[..., bytes]
BOTH = pytest.mark.parametrize("request_of", [hot, chunked], ids=["fast", "uvicorn"])


def test_an_answer_has_a_date_its_length_and_what_the_call_gave(fronts: Fronts) -> None:
    with client(fronts) as one:
        one.send(hot(b"hello"))
        status, head, body = one.answer()

    assert (status, body) == (200, b"hello")
    assert re.search(rb"\r\ndate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n", head)
    assert b"\r\ncontent-type: text/plain\r\n" in head
    assert fronts.call().request.headers[b"host"] == b"x"


@BOTH
def test_a_stream_is_written_as_it_comes(fronts: Fronts, request_of: Ask) -> None:
    fronts.answers = False
    with client(fronts) as one:
        one.send(request_of())
        call = fronts.call()
        call.do(lambda front: front.begin(200, PLAIN))
        head = one.until(b"\r\n\r\n")
        call.do(lambda front: front.write(b"first"))
        first = one.until(b"first\r\n")
        call.do(lambda front: front.write(b""))
        call.do(lambda front: front.end(b"last"))
        last = one.until(b"0\r\n\r\n")

    assert b"transfer-encoding: chunked" in head
    assert first == b"5\r\nfirst\r\n"
    assert last == b"4\r\nlast\r\n0\r\n\r\n"


def test_ordinary_requests_are_uvicorns_with_all_their_bytes(fronts: Fronts) -> None:
    with client(fronts) as one:
        one.send(hot(b"one") + ORDINARY + hot(b"two"))
        answers = [one.answer(), one.answer(), one.answer()]

    assert [body for _, _, body in answers] == [b"one", b'{"bytes":0}', b"two"]


def test_a_second_request_waits_for_the_first_answer(fronts: Fronts) -> None:
    fronts.answers = False
    with client(fronts) as one:
        one.send(hot(b"one") + hot(b"two"))
        fronts.call().do(lambda front: front.answer(200, PLAIN, b"1"))
        first = one.answer()
        fronts.call(1).do(lambda front: front.answer(200, PLAIN, b"2"))
        second = one.answer()

    assert (first[2], second[2]) == (b"1", b"2")
    assert [call.request.body for call in fronts.calls] == [b"one", b"two"]


def test_a_flood_of_requests_during_an_answer_is_held_back(fronts: Fronts) -> None:
    fronts.answers = False
    flood = hot(b"x" * 1000) * 20_000
    with client(fronts) as one:
        one.send(hot())
        call = fronts.call()
        sent = one.send_until_full(flood)
        fronts.answers = True
        call.do(lambda front: front.answer(200, PLAIN, b"first"))
        first = one.answer()
        second = one.answer()

    assert sent < len(flood)
    assert (first[2], second[2]) == (b"first", b"x" * 1000)


def test_connection_close_is_meant(fronts: Fronts) -> None:
    with client(fronts) as one:
        one.send(hot(b"bye", b"Connection: close\r\n"))
        sent = one.rest()

    assert b"connection: close\r\n" in sent
    assert sent.endswith(b"\r\n\r\nbye")


@BOTH
def test_a_body_over_the_limit_is_refused(request_of: Ask) -> None:
    with Fronts(max_body_bytes=1000) as fronts, client(fronts) as one:
        one.send(request_of(b"x" * 1001))
        status, _, body = one.answer()

    assert status == 413
    assert b'"code":"request_too_large"' in body
    assert not fronts.calls


def test_a_body_over_the_limit_is_refused_before_it_is_sent() -> None:
    with Fronts(max_body_bytes=1000) as fronts, client(fronts) as one:
        one.send(hot(b"x" * 10**6)[:200])
        sent = one.rest()

    assert sent.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in sent


@pytest.mark.parametrize("framing", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
def test_a_stranger_is_turned_away_before_the_body_is_sent(fronts: Fronts, framing: bytes) -> None:
    with client(fronts) as one:
        one.send(b"POST %b HTTP/1.1\r\nHost: x\r\n%b%b\r\n\r\n" % (HOT.encode(), STRANGER, framing))
        status, _, body = one.answer()

    assert (status, body) == (401, b"who are you?")
    assert fronts.calls == []


def test_what_a_stranger_goes_on_sending_is_no_request(fronts: Fronts) -> None:
    with client(fronts) as one:
        one.send(hot(b"x" * 5000, STRANGER)[:-4000])
        _, head, _ = one.answer()
        one.send(hot())
        after = one.rest()

    assert b"\r\nconnection: close\r\n" in head
    assert after == b""
    assert fronts.calls == []


@BOTH
def test_bodies_that_come_slowly_take_only_so_much_memory(request_of: Ask) -> None:
    with Fronts(max_body_bytes=1000) as fronts, ExitStack() as stack:
        slow = {(one := stack.enter_context(client(fronts))).socket: one for _ in range(BODIES + 1)}
        for one in slow.values():
            one.send(request_of(b"x" * 1000)[:-6])
        refused, _, _ = select.select(slow, [], [], 10)
        status, head, _ = slow[refused[0]].answer()
        for one in slow.values():
            one.socket.close()
        again = stack.enter_context(client(fronts))
        again.send(request_of(b"x"))
        taken, _, _ = again.answer()

    assert (status, len(refused)) == (503, 1)
    assert b"\r\nretry-after: " in head
    assert taken == 200


def test_connections_beyond_the_most_are_told_so() -> None:
    with Fronts(connections=2) as fronts, ExitStack() as stack:
        two = [stack.enter_context(client(fronts)) for _ in range(2)]
        for one in two:
            one.send(hot())
            one.answer()
        third = stack.enter_context(client(fronts))
        third.send(hot())
        status, head, _ = third.answer()
        two[0].send(hot(b"still"))
        _, _, body = two[0].answer()

    assert status == 503
    assert b"\r\nretry-after: " in head
    assert body == b"still"


@pytest.mark.parametrize(
    "begun",
    [hot()[:10], hot()[:-10], ORDINARY[:10], ORDINARY[:-3], chunked()[:60]],
    ids=["hot line", "hot head", "line", "head", "chunked head"],
)
def test_a_slow_head_is_refused(hasty: Fronts, begun: bytes) -> None:
    with client(hasty) as one:
        one.send(begun)
        sent = one.rest()

    assert sent.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in sent


@BOTH
def test_a_slow_body_is_refused(hasty: Fronts, request_of: Ask) -> None:
    before = len(hasty.calls)
    with client(hasty) as one:
        one.send(request_of(b"x" * 100)[:-60])
        sent = one.rest()

    assert sent.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in sent
    assert len(hasty.calls) == before


def test_a_second_slow_head_is_refused_on_a_used_connection(patient_with_bodies: Fronts) -> None:
    with client(patient_with_bodies) as one:
        one.send(ORDINARY)
        one.answer()
        one.send(b"\r\n")
        sent = one.rest()

    assert sent.startswith(b"HTTP/1.1 408 ")


def test_trickling_does_not_help(hasty: Fronts) -> None:
    with client(hasty) as one:
        one.socket.settimeout(0.05)
        answer = b""
        for byte in ORDINARY[:4] + b"x" * 1000:
            one.send(bytes([byte]))
            try:
                answer = one.socket.recv(65536)
                break
            except TimeoutError:
                pass  # not yet

    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("first", [b"", hot(), ORDINARY], ids=["new", "fast", "uvicorn"])
def test_an_idle_connection_is_closed_without_a_word(hasty: Fronts, first: bytes) -> None:
    with client(hasty) as one:
        one.send(first)
        if first:
            one.answer()
        sent = one.rest()

    assert sent == b""


def test_an_answer_takes_its_time(hasty: Fronts) -> None:
    hasty.answers = False
    number = len(hasty.calls)
    try:
        with client(hasty) as slow, client(hasty) as other:
            slow.send(hot())
            call = hasty.call(number)
            other.rest()  # a whole idle time passes
            call.do(lambda front: front.answer(200, PLAIN, b"late"))
            answer = slow.answer()
    finally:
        hasty.answers = True

    assert answer[2] == b"late"


@BOTH
def test_a_client_that_leaves_is_noticed(fronts: Fronts, request_of: Ask) -> None:
    fronts.answers = False
    with client(fronts) as one:
        one.send(request_of())
        call = fronts.call()

    assert call.gone.wait(10)
    call.do(lambda front: front.answer(200, PLAIN, b"into the void"))


@BOTH
def test_a_client_that_stops_sending_has_left(fronts: Fronts, request_of: Ask) -> None:
    fronts.answers = False
    with client(fronts) as one:
        one.send(request_of())
        call = fronts.call()
        one.socket.shutdown(socket.SHUT_WR)

        assert call.gone.wait(10)


def test_a_client_that_leaves_after_its_answer_is_nobodys_business(fronts: Fronts) -> None:
    with client(fronts) as one:
        one.send(hot())
        one.answer()
    with client(fronts) as other:
        other.send(hot())
        other.answer()

    assert not fronts.call().gone.is_set()


@BOTH
def test_a_broken_off_stream_does_not_look_whole(fronts: Fronts, request_of: Ask) -> None:
    fronts.answers = False
    with client(fronts) as one:
        one.send(request_of())
        call = fronts.call()
        call.do(lambda front: front.begin(200, PLAIN))
        call.do(lambda front: front.write(b"half"))
        call.do(lambda front: front.abort())
        sent = one.rest()

    assert sent.endswith(b"4\r\nhalf\r\n")
    assert not call.gone.is_set()


@BOTH
def test_a_client_that_does_not_read_holds_its_call_back(fronts: Fronts, request_of: Ask) -> None:
    fronts.answers = False
    piece = b"~" * 10_000
    written = 0

    def until_clogged(front: Front) -> None:
        nonlocal written
        while not front.clogged:
            front.write(piece)
            written += len(piece)

    with client(fronts) as one:
        one.send(request_of())
        call = fronts.call()
        call.do(lambda front: front.begin(200, PLAIN))
        call.do(until_clogged)
        while call.relieved.wait(0.3) and written < 50_000_000:
            call.relieved.clear()  # the kernel's buffers are not full yet
            call.do(until_clogged)
        one.until(b"\r\n\r\n")
        count = 0
        while count < written:
            count += one.until(b"\r\n").count(b"~")
        assert call.relieved.wait(10)
        call.do(lambda front: front.end())
        one.until(b"0\r\n\r\n")

    assert 64_000 < written < 50_000_000


def test_a_client_that_never_reads_is_cut_off(hasty: Fronts) -> None:
    hasty.answers = False
    number = len(hasty.calls)
    try:
        with client(hasty) as one:
            one.send(hot())
            call = hasty.call(number)
            call.do(lambda front: front.begin(200, PLAIN))
            call.do(lambda front: front.write(b"x" * 20_000_000))

            assert call.gone.wait(10)
    finally:
        hasty.answers = True


def test_a_header_cannot_break_its_line(fronts: Fronts) -> None:
    fronts.answers = False
    with client(fronts) as one:
        one.send(hot())
        call = fronts.call()

        with pytest.raises(ValueError, match="breaks its line"):
            call.do(lambda front: front.answer(200, [(b"x-a", b"b\r\nx-c: d")], b""))


def test_a_worker_that_stops_finishes_what_runs(fronts: Fronts) -> None:
    fronts.answers = False
    with client(fronts) as busy, client(fronts) as idle, client(fronts) as streaming:
        idle.send(ORDINARY)
        idle.answer()
        busy.send(hot(b"a"))
        call = fronts.call()
        streaming.send(hot(b"b"))
        stream = fronts.call(1)
        stream.do(lambda front: front.begin(200, PLAIN))
        fronts.stop()
        closed = idle.rest()
        call.do(lambda front: front.answer(200, PLAIN, b"done"))
        stream.do(lambda front: front.end(b"done too"))
        answered = busy.rest()
        streamed = streaming.rest()
        fronts.until_stopped()

    assert closed == b""
    assert b"connection: close\r\n" in answered
    assert answered.endswith(b"done")
    assert streamed.endswith(b"8\r\ndone too\r\n0\r\n\r\n")


def test_a_request_on_its_way_is_answered_while_the_worker_stops(fronts: Fronts) -> None:
    fronts.answers = False
    with client(fronts) as busy, client(fronts) as late:
        busy.send(hot(b"a"))
        call = fronts.call()
        late.send(hot(b"late")[:-2])
        busy.send(hot(b"pipelined")[:30])
        fronts.stop()
        late.send(b"te")
        fronts.call(1).do(lambda front: front.answer(200, PLAIN, b"still"))
        answered = late.rest()
        call.do(lambda front: front.answer(200, PLAIN, b"bye"))
        busy.rest()
        fronts.until_stopped()

    assert answered.endswith(b"still")


@BOTH
def test_a_worker_that_stops_cuts_what_does_not_end(request_of: Ask) -> None:
    with Fronts(drain_s=1) as fronts, client(fronts) as one:
        fronts.answers = False
        one.send(request_of())
        call = fronts.call()
        fronts.stop()
        fronts.until_stopped()

    assert call.gone.is_set()
