"""What is counted of a call, and where it stands in its client's trace."""

from uuid import UUID

import msgspec

from gateway.log.record import Invocation, new_id
from gateway.telemetry import UNTRACED, Telemetry, Trace
from gateway.telemetry.counters import DURATION, MAX_SERIES, CallKey, Counts
from tests.factories import invocation

ID = UUID("0190f5c8-0000-7000-8123-456789abcdef")
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class KeptSpans:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.kept: list[UUID] = []

    def put(self, call: Invocation, trace: Trace, **_: object) -> None:
        if trace.exported:
            self.kept.append(call.id)


def call(**fields: object) -> Invocation:
    usual: dict[str, object] = {"engine": "e0", "arm": "incumbent", "duration": 1.0}
    return invocation(**(usual | fields))


def finish(telemetry: Telemetry, invocation: Invocation, **more: object) -> None:
    usual: dict[str, object] = {"alias": "helpdesk", "overhead_s": 0.0002, "attempts": 1}
    telemetry.finished(invocation, **(usual | more))  # type: ignore[arg-type]


def traceparent(flags: str = "01") -> bytes:
    return f"00-{TRACE}-{PARENT}-{flags}".encode()


def test_calls_with_the_same_labels_are_counted_together() -> None:
    telemetry = Telemetry(Counts(since=0.0))

    finish(telemetry, call(input_tokens=10, output_tokens=5, cost=0.25))
    finish(telemetry, call(input_tokens=20, output_tokens=7, cost=0.5), attempts=3)
    finish(telemetry, call(status=503, error_type="engine_unavailable", engine=None))

    counts = telemetry.counts
    answered = CallKey("helpdesk", "incumbent", "chat", "vllm", 200, "")
    failed = answered._replace(status=503, error="engine_unavailable")
    assert set(counts.calls) == {answered, failed}
    series = counts.calls[answered]
    assert (series.calls, series.retries, series.cost) == (2, 2, 0.75)
    assert (series.input_tokens, series.output_tokens) == (30, 12)
    assert counts.engines == {("e0", 200): 2}


def test_a_duration_falls_into_the_bucket_that_ends_with_it() -> None:
    telemetry = Telemetry(Counts(since=0.0))

    finish(telemetry, call(duration=0.02, time_to_first_chunk=0.011))
    finish(telemetry, call(duration=10_000.0))

    (series,) = telemetry.counts.calls.values()
    assert series.duration.counts[DURATION.index(0.02)] == 1
    assert series.duration.counts[-1] == 1
    assert series.first_chunk.counts[DURATION.index(0.02)] == 1
    assert sum(series.first_chunk.counts) == 1


def test_labels_stay_bounded_whatever_comes() -> None:
    telemetry = Telemetry(Counts(since=0.0))

    for number in range(3 * MAX_SERIES):
        finish(telemetry, call(engine=f"e{number}"), alias=f"alias-{number}")
        telemetry.refused(400, f"code-{number}")

    counts = telemetry.counts
    sizes = [len(counts.calls), len(counts.engines), len(counts.refused)]
    assert max(sizes) <= MAX_SERIES + 1
    assert sum(series.calls for series in counts.calls.values()) == 3 * MAX_SERIES
    assert sum(counts.engines.values()) == sum(counts.refused.values()) == 3 * MAX_SERIES


def test_counts_survive_being_written_down_and_read_back() -> None:
    telemetry = Telemetry(Counts(since=5.0))
    finish(telemetry, call(time_to_first_chunk=0.5))
    telemetry.refused(429, "rate_limit_exceeded")

    read = msgspec.msgpack.decode(msgspec.msgpack.encode(telemetry.counts), type=Counts)

    assert read == telemetry.counts
    assert [key.alias for key in read.calls] == ["helpdesk"]


def test_the_clients_trace_passes_through_untouched_when_nothing_is_exported() -> None:
    telemetry = Telemetry(Counts(since=0.0))

    none = telemetry.trace({}, ID)
    passed = telemetry.trace({b"traceparent": traceparent(), b"tracestate": b"a=1"}, ID)

    assert none is UNTRACED
    assert passed.headers == [(b"traceparent", traceparent()), (b"tracestate", b"a=1")]
    assert not passed.exported


def test_the_engine_is_told_our_span_in_the_clients_trace() -> None:
    telemetry = Telemetry(Counts(since=0.0), spans=KeptSpans())

    trace = telemetry.trace({b"traceparent": traceparent(), b"tracestate": b"a=1"}, ID)

    told = f"00-{TRACE}-8123456789abcdef-01".encode()
    assert trace.headers == [(b"traceparent", told), (b"tracestate", b"a=1")]
    assert f"{trace.trace_id:032x}" == TRACE
    assert f"{trace.parent_id:016x}" == PARENT
    assert trace.exported


def test_the_clients_flag_decides_before_the_share_does() -> None:
    always = Telemetry(Counts(since=0.0), spans=KeptSpans(), sample=1.0)
    never = Telemetry(Counts(since=0.0), spans=KeptSpans(), sample=0.0)

    unwanted = always.trace({b"traceparent": traceparent("00")}, ID)
    wanted = never.trace({b"traceparent": traceparent("01")}, ID)

    assert not unwanted.exported
    assert unwanted.headers[0][1].endswith(b"-00")
    assert wanted.exported


def test_a_call_without_a_trace_begins_one_that_its_id_leads_to() -> None:
    telemetry = Telemetry(Counts(since=0.0), spans=KeptSpans())

    trace = telemetry.trace({b"traceparent": b"00-malformed"}, ID)

    assert trace.headers == [(b"traceparent", f"00-{ID.hex}-{ID.hex[16:]}-01".encode())]
    assert trace.parent_id == 0


def test_about_the_configured_share_of_calls_is_sampled() -> None:
    telemetry = Telemetry(Counts(since=0.0), spans=KeptSpans(), sample=0.25)

    sampled = sum(telemetry.trace({}, new_id()).exported for _ in range(4000))

    assert 800 < sampled < 1200


def test_only_sampled_calls_become_spans() -> None:
    spans = KeptSpans()
    telemetry = Telemetry(Counts(since=0.0), spans=spans)
    wanted, unwanted = call(), call()

    finish(telemetry, wanted, trace=telemetry.trace({}, wanted.id))
    finish(telemetry, unwanted, trace=telemetry.trace({b"traceparent": traceparent("00")}, ID))
    finish(telemetry, call())

    assert spans.kept == [wanted.id]
