"""What several workers show together, and what a restart leaves of it."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry import Board, Telemetry, Vitals
from gateway.telemetry.exposition import Engine, House, exposed
from tests.factories import invocation

VITALS = Vitals(
    in_flight=3,
    capacity=512,
    memory_bytes=1000,
    state_age_s=0.5,
    records_dropped=0,
    engines={"e0": (2, False), "e1": (1, True)},
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def board(run: Path, worker: str, *, vitals: Vitals = VITALS, now: Clock | None = None) -> Board:
    return Board(run, worker, vitals=lambda: vitals, now=now or Clock())


def count(board: Board, calls: int, **fields: object) -> None:
    telemetry = Telemetry(board.counts)
    for _ in range(calls):
        usual = {"status": 200, "duration": 0.5, "arm": "incumbent", "engine": "e0"}
        telemetry.finished(
            invocation(**(usual | fields)), alias="helpdesk", overhead_s=0.0004, attempts=1
        )


def samples(board: Board, house: House = House()) -> dict[tuple[str, ...], float]:  # noqa: B008
    """What a scrape of this worker sees, by name and labels."""
    pages = board.pages()
    live = {worker: page for worker, page in pages.items() if board.is_live(page)}
    text = exposed(pages, live, house)
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(found: dict[tuple[str, ...], float], name: str) -> float:
    return sum(value for key, value in found.items() if key[0] == name)


def test_whichever_worker_is_asked_all_workers_calls_are_told(tmp_path: Path) -> None:
    one, two = board(tmp_path, "w0"), board(tmp_path, "w1")
    count(one, 3)
    count(two, 4)
    count(two, 1, status=503, error_type="engine_unavailable")
    one.pages()

    seen = samples(two)

    assert total(seen, "ratchet_requests_total") == 8
    assert total(seen, "ratchet_request_duration_seconds_count") == 8
    assert total(seen, "ratchet_overhead_seconds_count") == 8
    assert total(samples(one), "ratchet_requests_total") == 8


def test_a_worker_that_comes_back_goes_on_where_its_last_scrape_was(tmp_path: Path) -> None:
    killed = board(tmp_path, "w0")
    count(killed, 5)
    before = samples(killed)

    back = board(tmp_path, "w0")
    count(back, 2)
    after = samples(back)

    counters = {key for key in before if key[0].endswith(("_total", "_count", "_bucket"))}
    assert all(after[key] >= before[key] for key in counters)
    assert total(after, "ratchet_requests_total") == 7
    assert after["ratchet_worker_starts_total", "worker=w0"] == 2


def test_what_vitals_told_in_earlier_lives_still_counts(tmp_path: Path) -> None:
    told = Vitals(0, 512, 1, 0.0, records_dropped=4, engines={}, limits_unchecked=2)
    board(tmp_path, "w0", vitals=told).pages()

    seen = samples(board(tmp_path, "w0", vitals=told))

    assert seen["ratchet_records_dropped_total",] == 8
    assert seen["ratchet_limits_unchecked_total",] == 4


def test_a_worker_long_gone_counts_with_its_calls_but_not_with_its_vitals(tmp_path: Path) -> None:
    clock = Clock()
    gone, here = board(tmp_path, "w1", now=clock), board(tmp_path, "w0", now=clock)
    count(gone, 2)
    gone.pages()
    clock.now += 60

    seen = samples(here)

    assert total(seen, "ratchet_requests_total") == 2
    assert {key for key in seen if key[0] == "ratchet_in_flight"} == {
        ("ratchet_in_flight", "worker=w0")
    }


def test_a_page_of_another_version_is_left_out(tmp_path: Path) -> None:
    here = board(tmp_path, "w0")
    count(here, 1)
    (tmp_path / "metrics-w1.msgpack").write_bytes(b"\x81\xa1v\x09")

    seen = samples(here)

    assert total(seen, "ratchet_requests_total") == 1


def test_engines_are_told_with_all_workers_calls(tmp_path: Path) -> None:
    one, two = board(tmp_path, "w0"), board(tmp_path, "w1")
    two.pages()
    engines = (Engine("e0", "base", "ready"), Engine("e1", "base", "draining"))

    seen = samples(one, House(engines, {"helpdesk": True, "other": False}))

    assert seen["ratchet_engine_in_flight", "engine=e0"] == 4
    assert seen["ratchet_engine_benched", "engine=e1"] == 2
    assert seen["ratchet_engine_state", "base=base", "engine=e1", "state=draining"] == 1
    assert seen["ratchet_alias_ready", "alias=other"] == 0


def test_labels_with_quotes_and_backslashes_are_read_back_as_they_are(tmp_path: Path) -> None:
    odd = board(tmp_path, "w0")
    alias = 'a"b\\c\nd'
    Telemetry(odd.counts).finished(invocation(status=200), alias=alias, overhead_s=0.1, attempts=1)

    seen = samples(odd)

    assert any(f"alias={alias}" in key for key in seen)


def test_the_buckets_of_a_histogram_add_up(tmp_path: Path) -> None:
    here = board(tmp_path, "w0")
    count(here, 2, duration=0.015)
    count(here, 1, duration=1e6)

    seen = samples(here)

    labels = ("alias=helpdesk", "arm=incumbent", "le={}", "operation=chat", "status=2xx")
    name = "ratchet_request_duration_seconds_bucket"
    of = {end: seen[name, *(part.format(end) for part in labels)] for end in ("0.01", "0.02")}
    assert of == {"0.01": 0, "0.02": 2}
    assert seen[name, *(part.format("+Inf") for part in labels)] == 3


def test_mirrored_calls_do_not_tell_of_the_gateways_overhead(tmp_path: Path) -> None:
    here = board(tmp_path, "w0")
    count(here, 1)
    count(here, 3, arm="shadow")

    seen = samples(here)

    assert total(seen, "ratchet_overhead_seconds_count") == 1
    assert total(seen, "ratchet_requests_total") == 4
