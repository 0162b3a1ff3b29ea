"""What the demo found: gathered from the turn, the log and the clients' own ledger."""

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from learner.api.client import LearnerClient
from learner.cli.demo.traffic import Ledger
from learner.cli.demo.world import ALIAS

INGEST_TIMEOUT_S = 30.0
MARGIN_S = 2.0
"""Requests this long before and after the flip count as the swap's."""

_BY_ADAPTER = "SELECT adapter, count(*) AS n FROM invocations GROUP BY ALL"
_FLIP = """
SELECT min(ts) FILTER (adapter = '{new}') AS first_new,
  max(ts) FILTER (adapter IS DISTINCT FROM '{new}') AS last_old,
  min(ts + to_microseconds(CAST(duration * 1e6 AS BIGINT))) FILTER (adapter = '{new}')
    AS first_answer
FROM invocations WHERE status = 200
"""
_NAMES = {"base": "base", "incumbent": "incumbent", "sft": "after SFT", "rft": "after SFT + RFT"}


@dataclass(frozen=True, slots=True)
class Times:
    """Moments that only the story knows, in seconds of ``time.time``."""

    last_feedback: float
    moved: float | None
    """When the gateway was first seen to resolve the alias to another adapter."""


@dataclass(slots=True)
class Swap:
    """The moment the alias moved, as the clients saw it."""

    flip_ms: float
    requests: int
    failed: int
    mixed: int


@dataclass(slots=True)
class Figures:
    """Everything the demo prints."""

    state: str
    verdict: Mapping[str, Any]
    error: str | None
    answers: Mapping[str, int]
    """The clients' count of answers, by the model name they carried."""
    logged: Mapping[str, int]
    """The log's count of the same."""
    failed: int
    mixed: int
    swap: Swap | None
    feedback_to_answer_s: float | None
    seconds: Mapping[str, float] = field(default_factory=dict)
    peak_rss_mb: float = 0.0

    def problem(self) -> str | None:
        """Why the demo did not show what it should; None when it did."""
        if self.error or not self.verdict:
            return f"the turn failed: {self.error}"
        if self.failed or self.mixed:
            return f"{self.failed} requests failed and {self.mixed} were mixed"
        if dict(self.answers) != dict(self.logged):
            return f"clients counted {dict(self.answers)}, the log holds {dict(self.logged)}"
        return None

    def as_json(self) -> dict[str, Any]:
        """The figures for machines."""
        verdict = self.verdict
        seconds = dict(self.seconds)
        if self.feedback_to_answer_s is not None:
            seconds["feedback_to_answer"] = self.feedback_to_answer_s
        return {
            "held_out": verdict.get("held_out"),
            "verdict": {key: verdict.get(key) for key in ("decision", "gain", "interval", "mde")},
            "swap": None
            if self.swap is None
            else {
                "flip_ms": self.swap.flip_ms,
                "requests": self.swap.requests,
                "failed": self.swap.failed,
                "mixed": self.swap.mixed,
            },
            "answers": dict(self.answers),
            "logged": dict(self.logged),
            "seconds": seconds,
            "peak_rss_mb": self.peak_rss_mb,
        }


def collect(
    learner: LearnerClient, turn: Mapping[str, Any], ledger: Ledger, times: Times
) -> Figures:
    """Gather the figures once the turn has ended and traffic has stopped."""
    failed = [answer for answer in ledger.answers if answer.error]
    mixed = [answer for answer in ledger.answers if answer.mixed]
    answers = ledger.by_model()
    base = next((name for name in answers if not name.startswith(f"{ALIAS}--")), "base")
    logged = _logged(learner, base, sum(answers.values()))
    figures = Figures(
        state=turn["state"],
        verdict=turn["verdict"] or {},
        error=turn["error"],
        answers=answers,
        logged=logged,
        failed=len(failed),
        mixed=len(mixed),
        swap=None,
        feedback_to_answer_s=None,
    )
    figures.seconds = _spans(learner.events(turn["id"]))
    live = _live(learner, turn["id"])
    if live is not None:
        new, at = live
        row = learner.select(_FLIP.format(new=new)).to_pylist()[0]
        # Over when the gateway resolves anew and the last request has gone to the old adapter.
        over = max(times.moved or _epoch(row["first_new"]), _epoch(row["last_old"]))
        around = ledger.between(at - MARGIN_S, at + MARGIN_S)
        figures.swap = Swap(
            flip_ms=(over - at) * 1000,
            requests=len(around),
            failed=sum(1 for answer in around if answer.error),
            mixed=sum(1 for answer in around if answer.mixed),
        )
        figures.feedback_to_answer_s = _epoch(row["first_answer"]) - times.last_feedback
    return figures


def _logged(learner: LearnerClient, base: str, expected: int) -> dict[str, int]:
    """The log's count, once it has caught up."""
    deadline = time.time() + INGEST_TIMEOUT_S
    while True:
        rows = learner.select(_BY_ADAPTER).to_pylist()
        counts = {row["adapter"] or base: row["n"] for row in rows}
        if sum(counts.values()) >= expected or time.time() > deadline:
            return counts
        time.sleep(0.2)


def _live(learner: LearnerClient, turn_id: str) -> tuple[str, float] | None:
    """The adapter the turn made live, and when; None when it did not."""
    for event in reversed(learner.events(turn_id)):
        data = event["data"] or {}
        if "live_at" in data:
            return data["adapter"], datetime.fromisoformat(data["live_at"]).timestamp()
    return None


def _spans(events: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds in each phase of a turn, from its events."""
    spans: dict[str, float] = {}
    for before, event in itertools.pairwise(events):
        ends, begins = (datetime.fromisoformat(one["at"]) for one in (event, before))
        spans[event["phase"]] = spans.get(event["phase"], 0.0) + (ends - begins).total_seconds()
    return spans


def _epoch(at: datetime) -> float:
    """The log's times are UTC without saying so."""
    return at.replace(tzinfo=UTC).timestamp()


def print_report(console: Console, figures: Figures) -> None:
    """The table, the verdict and the swap, for people."""
    verdict = figures.verdict
    table = Table(title="Held-out requests", title_justify="left")
    for heading in ("model", "exact", "mean reward", "n"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for name, row in (verdict.get("held_out") or {}).items():
        exact = "-" if row["exact"] is None else f"{row['exact']:.1%}"
        table.add_row(_NAMES.get(name, name), exact, f"{row['reward']:.3f}", str(row["n"]))
    console.print()
    console.print(table)
    if verdict:
        low, high = verdict["interval"]
        console.print(
            f"Verdict: [bold]{verdict['decision']}[/]; gain in mean reward {verdict['gain']:+.3f}, "
            f"95 % interval {low:+.3f} to {high:+.3f}; "
            f"{verdict['n']} pairs detect {verdict['mde']:.3f}",
            soft_wrap=True,
        )
    if figures.swap is not None:
        swap = figures.swap
        console.print(
            f"Swap: {swap.flip_ms:.0f} ms; {swap.requests} requests around it, "
            f"{swap.failed} failed, {swap.mixed} mixed"
        )
    counts = ", ".join(f"{name} {n}" for name, n in figures.answers.items())
    console.print(f"Answers: {counts}; {figures.failed} failed, {figures.mixed} mixed")
    agrees = "agrees" if dict(figures.answers) == dict(figures.logged) else "DISAGREES"
    console.print(f"The log {agrees}: {sum(figures.logged.values())} invocations")
    if figures.feedback_to_answer_s is not None:
        console.print(
            f"From the last feedback to the new adapter's first answer: "
            f"{figures.feedback_to_answer_s:.0f} s"
        )
    spans = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in figures.seconds.items())
    console.print(f"Time: {spans}. Memory at most {figures.peak_rss_mb / 1024:.1f} GB")
