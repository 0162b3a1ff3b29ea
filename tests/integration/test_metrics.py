"""/metrics and spans of running gateways, over HTTP."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.collector import Collector, fields
from tests.integration.conftest import ALIAS, Gateway, free_port
from tests.queries import PROMETHEUS_OWN, QUERIES, metrics_in
from tests.workers import Worker

PATH = "/v1/chat/completions"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"

Samples = dict[tuple[str, ...], float]


def scrape(url: str) -> Samples:
    """What /metrics tells, by name and labels."""
    answer = httpx.get(f"{url}/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): (
            sample.value
        )
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def total(found: Samples, name: str, *labels: str) -> float:
    return sum(value for key, value in found.items() if key[0] == name and {*labels} <= {*key})


@contextmanager
def another(gateway: Gateway, worker: str) -> Iterator[tuple[str, Worker]]:
    """One more worker of the same house, at an address of its own so that it can be told apart."""
    port = free_port()
    environment = dict(gateway.environment) | {
        "GATEWAY_PORT": str(port),
        "GATEWAY_WORKER": worker,
    }
    with Worker(environment) as process:
        url = f"http://127.0.0.1:{port}"
        gateway.until_ready(url)
        yield url, process


async def ask(gateway: Gateway, calls: int, url: str | None = None, **more: object) -> None:
    async with httpx.AsyncClient(base_url=url or gateway.url, headers=gateway.headers) as client:
        for _ in range(calls):
            answer = await client.post(PATH, json=gateway.body(**more))
            assert answer.status_code == 200


async def test_calls_are_told_with_their_tokens_times_and_engine(gateway: Gateway) -> None:
    await ask(gateway, 3)
    await ask(gateway, 2, stream=True)

    seen = await asyncio.to_thread(scrape, gateway.url)

    labels = (f"alias={ALIAS}", "arm=incumbent")
    assert total(seen, "ratchet_requests_total", *labels, "status=200", "operation=chat") == 5
    assert total(seen, "ratchet_request_duration_seconds_count", *labels, "status=2xx") == 5
    assert total(seen, "ratchet_time_to_first_chunk_seconds_count", *labels) == 2
    assert total(seen, "ratchet_overhead_seconds_count", f"alias={ALIAS}") == 5
    assert total(seen, "ratchet_tokens_total", *labels, "type=input") == 25
    assert total(seen, "ratchet_engine_requests_total", "engine=e0", "status=200") == 5
    assert seen["ratchet_alias_ready", f"alias={ALIAS}"] == 1
    assert seen["ratchet_in_flight", "worker=w0"] == 0
    assert seen["ratchet_worker_memory_bytes", "worker=w0"] > 10_000_000


async def test_requests_without_a_key_are_counted_apart(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        answer = await client.post(PATH, json=gateway.body())

    seen = await asyncio.to_thread(scrape, gateway.url)

    assert answer.status_code == 401
    assert total(seen, "ratchet_refused_total", "status=401", "code=invalid_api_key") == 1
    assert total(seen, "ratchet_requests_total") == 0


async def test_everything_that_the_dashboard_asks_for_is_told(gateway: Gateway) -> None:
    await ask(gateway, 1, stream=True)
    await gateway.post(PATH, gateway.body(), authorization="Bearer wrong")

    seen = await asyncio.to_thread(scrape, gateway.url)

    asked = set().union(*map(metrics_in, QUERIES)) - PROMETHEUS_OWN
    assert asked <= {key[0] for key in seen}


async def test_two_workers_counts_add_up_exactly_whichever_is_asked(gateway: Gateway) -> None:
    with another(gateway, "w1") as (url, _):
        await asyncio.gather(ask(gateway, 7), ask(gateway, 5, url))
        await asyncio.to_thread(scrape, gateway.url)  # writes its page
        seen = await asyncio.to_thread(scrape, url)

    assert total(seen, "ratchet_requests_total") == 12
    assert {key[1] for key in seen if key[0] == "ratchet_in_flight"} == {"worker=w0", "worker=w1"}


async def test_what_was_told_never_goes_down_not_even_after_kill_9(gateway: Gateway) -> None:
    with another(gateway, "w1") as (url, process):
        await ask(gateway, 6, url)
        before = await asyncio.to_thread(scrape, url)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with another(gateway, "w1") as (url, _):
        await ask(gateway, 1, url)
        after = await asyncio.to_thread(scrape, url)

    counters = {key for key in before if key[0].endswith(("_total", "_count", "_bucket", "_sum"))}
    assert all(after[key] >= before[key] for key in counters)
    assert total(after, "ratchet_requests_total") == 7
    assert after["ratchet_worker_starts_total", "worker=w1"] == 2


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> dict[str, object]:
    """A test that takes a collector has the gateway export to it."""
    if "collector" not in request.fixturenames:
        return {}
    collector: Collector = request.getfixturevalue("collector")
    return {"GATEWAY_TELEMETRY": {"endpoint": collector.url}}


async def test_exporting_continues_the_clients_trace_through_to_the_engine(
    gateway: Gateway, collector: Collector
) -> None:
    answer = await gateway.post(PATH, gateway.body(), traceparent=f"00-{TRACE}-{PARENT}-01")

    (span,) = await asyncio.to_thread(collector.until_spans, 1)
    told = gateway.vllm.headers[-1]["traceparent"]
    attributes = fields(span.attributes)
    assert answer.status_code == 200
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert told == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert attributes["ratchet.invocation.id"] == answer.headers["x-request-id"]
    assert attributes["gen_ai.usage.input_tokens"] == 5
    assert attributes["server.address"] == "127.0.0.1"
    (record,) = gateway.spooled()
    assert (record.trace_id, record.span_id) == (TRACE, PARENT)


async def test_exporting_leaves_out_what_the_client_does_not_sample(
    gateway: Gateway, collector: Collector
) -> None:
    await gateway.post(PATH, gateway.body(), traceparent=f"00-{TRACE}-{PARENT}-00")
    await gateway.post(PATH, gateway.body())

    (span,) = await asyncio.to_thread(collector.until_spans, 1)
    assert span.trace_id.hex() != TRACE
    assert gateway.vllm.headers[0]["traceparent"].endswith("-00")


async def test_exporting_ends_with_a_flush(gateway: Gateway, collector: Collector) -> None:
    await ask(gateway, 20)

    gateway.process.terminate()
    await asyncio.to_thread(gateway.process.wait)

    assert len(collector.spans) == 20
    assert "gen_ai.client.inference.duration" in collector.metrics


async def test_without_a_collector_the_engine_sees_the_clients_own_header(gateway: Gateway) -> None:
    sent = f"00-{TRACE}-{PARENT}-01"
    await gateway.post(PATH, gateway.body(), traceparent=sent)
    await gateway.post(PATH, gateway.body())

    assert gateway.vllm.headers[0]["traceparent"] == sent
    assert "traceparent" not in gateway.vllm.headers[1]


@pytest.mark.parametrize("settings", [{"GATEWAY_TELEMETRY": {"endpoint": "http://127.0.0.1:9"}}])
async def test_calls_go_on_with_a_dead_collector(gateway: Gateway) -> None:
    await ask(gateway, 10)

    seen = await asyncio.to_thread(scrape, gateway.url)

    assert total(seen, "ratchet_requests_total", "status=200") == 10
