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

from gateway.log.ingest import Ingester
from gateway.log.store import Store

ASKED = 9
SAY_EVERY_S = 2.0

CANDIDATES = """
SELECT id::VARCHAR AS id, request, response, prompt_hash FROM invocations
WHERE request_model = 'helpdesk' AND tenant = 'default' AND train_ok AND status = 200
  AND ingest_ts > ? AND ingest_ts <= ? ORDER BY id LIMIT 2000
"""
DEMONSTRATED = """
SELECT i.id::VARCHAR AS id, i.request, i.prompt_hash, f.value AS demonstration
FROM feedback f JOIN invocations i ON f.target_id = i.id AND f.tenant = i.tenant
WHERE f.name = 'demonstration' AND f.target = 'invocation'
  AND i.request_model = 'helpdesk' AND i.tenant = 'default' AND i.train_ok
QUALIFY row_number() OVER (PARTITION BY i.id ORDER BY f.id DESC) = 1 ORDER BY f.id
"""
DASHBOARD = """
SELECT task, adapter, count(*) AS n, quantile_cont(duration, [0.5, 0.95]) AS seconds,
  sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
  count(error_type) AS errors
FROM invocations WHERE tenant = 'default' GROUP BY task, adapter
"""
RATINGS = """
SELECT i.task, avg(f.score_value) AS score, count(*) AS n
FROM feedback_current f JOIN invocations i ON f.target_id = i.id AND f.tenant = i.tenant
WHERE f.name = 'helpful' GROUP BY i.task
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
    with Store(path) as store:
        # A dashboard's queries run in a learner that has more than one core.
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
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
    watermark = store.rows(
        "SELECT quantile_disc(ingest_ts, 0.99) AS since, max(ingest_ts) AS upto, "
        "quantile_disc(id, 0.7)::VARCHAR AS id FROM invocations"
    )[0]
    span = [watermark["since"], watermark["upto"]]
    yield "candidates", partial(store.table, CANDIDATES, span)
    yield "demonstrated", partial(store.table, DEMONSTRATED)
    yield "dashboard", partial(store.table, DASHBOARD)
    yield "ratings", partial(store.table, RATINGS)
    yield "point", partial(store.table, POINT, [watermark["id"]])


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
