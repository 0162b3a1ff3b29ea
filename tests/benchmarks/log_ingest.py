"""The log's side of the benchmark, in a process of its own: ``log_ingest.py SPOOL LOG CORE``.

Takes what is spooled into the log on one core, as the learner does, and asks what the learner
and a dashboard ask. Writes a JSON object a line to standard output; the last is the result.
"""

import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[2]))

from gateway.log.catalogue import QUERIES
from gateway.log.filter import Filter
from gateway.log.ingest import Ingester
from gateway.log.store import Store
from learner.dataset import build
from learner.dataset.build import count_new
from tests.benchmarks.traffic import START

ASKED = 9
SAY_EVERY_S = 2.0

BODIES = """
SELECT id::VARCHAR AS id, request, response, prompt_hash FROM invocations
WHERE request_model = 'helpdesk' AND tenant = 'default' AND train_ok AND error_type IS NULL
  AND ingest_ts > ? ORDER BY id LIMIT 2000
"""
DASHBOARD = """
SELECT task, adapter, count(*) AS n, quantile_cont(duration, [0.5, 0.95]) AS seconds,
  sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
  count(error_type) AS errors
FROM invocations WHERE tenant = 'default' GROUP BY task, adapter
"""
FREE = """
SELECT free_blocks * block_size AS bytes FROM pragma_database_size() WHERE database_name = 'log'
"""
POINT = "SELECT * FROM invocations WHERE id = ?::UUID"


def main() -> None:
    spool, path, core = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    os.sched_setaffinity(0, {core})
    with Store(path) as store:
        result = _ingest(store, spool)
        rows = store.rows("SELECT count(*) AS n FROM invocations")[0]["n"]
    # Feedback comes along, but what counts is calls.
    result["ingest_rows_per_s"] = rows / result["ingest_s"]
    result["ingest_cpu_us"] = result["ingest_cpu_s"] / rows * 1e6
    result["bytes_per_row"] = path.stat().st_size / rows
    # A dashboard's queries run in a learner that has more than one core, and knows it.
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    with Store(path) as store:
        free = store.rows(FREE)[0]["bytes"]
        result["bytes_per_row_unused"] = free / rows
        result["query_ms"] = {name: _median_ms(ask) for name, ask in _questions(store)}
    _say({"invocations": rows} | result)


def _ingest(store: Store, spool: Path) -> dict[str, Any]:
    process = psutil.Process()
    ingester = Ingester(store, spool, now=partial(datetime.now, UTC))
    rss_mb: list[int] = []
    rows, said = 0, 0.0
    started, used = time.perf_counter(), time.process_time()
    while taken := ingester.run_once():
        rows += taken
        if time.perf_counter() - said > SAY_EVERY_S:
            said = time.perf_counter()
            rss_mb.append(process.memory_info().rss >> 20)
            _say({"rows": rows, "s": said - started, "rss_mb": rss_mb[-1]})
    seconds = time.perf_counter() - started
    return {
        "ingest_s": seconds,
        "ingest_cpu_s": time.process_time() - used,
        "ingest_peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "rss_mb": rss_mb,
    }


def _questions(store: Store) -> Iterator[tuple[str, Callable[[], object]]]:
    """What the learner asks every second and before a turn, a dashboard, and the named queries."""
    some = store.rows(
        "SELECT quantile_disc(ingest_ts, 0.9) AS since, quantile_disc(id, 0.7)::VARCHAR AS id "
        "FROM invocations"
    )[0]
    now = datetime.now(UTC)
    since = some["since"].replace(tzinfo=UTC)
    everything = Filter().sql(now)
    yield (
        "new",
        partial(count_new, store, "helpdesk", "default", Filter(), after=since, now=now),
    )
    demonstrated = build._DEMONSTRATED.format(where=everything.text)
    parameters = ["helpdesk", "default", now.replace(tzinfo=None), *everything.parameters]
    yield "demonstrated", partial(store.table, demonstrated, parameters)
    yield "bodies", partial(store.table, BODIES, [some["since"]])
    yield "dashboard", partial(store.table, DASHBOARD)
    yield "point", partial(store.table, POINT, [some["id"]])
    for name, query in QUERIES.items():
        given = {}
        if name == "candidates":
            given = {"after": since.isoformat(), "until": "0s"}
        elif any(parameter.name == "since" for parameter in query.parameters):
            given = {"since": START.isoformat()}
        asked = query.asked(given, now)
        yield name, partial(store.table, asked.text, asked.parameters)


def _median_ms(ask: Callable[[], object]) -> float:
    times = []
    for _ in range(ASKED):
        started = time.perf_counter()
        ask()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000


def _say(event: dict[str, Any]) -> None:
    print(json.dumps(event), flush=True)


if __name__ == "__main__":
    main()
