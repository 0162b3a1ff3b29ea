"""``ratchet log import`` and ``ratchet log export``."""

import itertools
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
from pydantic import ValidationError

from gateway.errors import ImportFailed, SpoolError
from gateway.log.cipher import Keyring
from gateway.log.export import jsonl, parquet
from gateway.log.export.file import write_lines
from gateway.log.export.selection import Selection, Source
from gateway.log.filter import Condition, Filter
from gateway.log.import_.intake import Intake
from gateway.log.import_.run import WORKER, Import, Rejects, Spooled, Tally, shape_of
from gateway.log.ingest import Ingester
from gateway.log.spool import SUFFIX, Durability, SpoolWriter
from gateway.log.subject import SubjectKey, episode_of
from learner.api.client import LearnerClient, LearnerDown
from learner.explain import explain
from learner.log import open_ingester, open_log
from learner.settings import RatchetConfig

PATIENCE_S = 120.0
"""How long an import waits for room in the spool, and for the learner to take its rows."""
ANSWER_S = 600.0
"""How long an export waits for the learner's next rows."""
_LOOK_EVERY_S = 0.1
_TELL_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Into:
    """What the command line says of everything in a file."""

    tenant: str
    alias: str | None
    task: str | None
    train_ok: bool


def import_files(
    config: RatchetConfig, name: str, paths: Sequence[Path], into: Into, rejects: Path
) -> dict[str, Any]:
    """Import them; what was done. Raises ImportFailed, SpoolError, StoreError, KeyUnavailable.

    With a running learner the rows wait in the spool until it takes them. Without one the log
    is opened here.
    """
    progress = _Progress()
    with ExitStack() as stack:
        taker = stack.enter_context(_taker(config))
        spool = _spool(config)
        stack.callback(taker.finish)
        stack.callback(spool.close)
        job = Import(
            shape_of(name),
            _intake(config, name, into),
            Spooled(spool, taker.relieve),
            stack.enter_context(Rejects(rejects)),
            progress.tell,
        )
        try:
            for path in paths:
                job.take(path)
        finally:
            progress.end(job.tally)
    return _summary(job.tally, progress.seconds, rejects)


def _intake(config: RatchetConfig, name: str, into: Into) -> Intake:
    return Intake(
        origin=name,
        tenant=into.tenant,
        at=datetime.now(UTC),
        subject=SubjectKey.open(config.subject_key).of,
        episode=episode_of,
        alias=into.alias,
        task=into.task,
        train_ok=into.train_ok,
    )


def _spool(config: RatchetConfig) -> SpoolWriter:
    keys = Keyring.from_environment(os.environ)
    return SpoolWriter(
        config.spool,
        WORKER,
        durability=Durability(config.log.durability),
        # The other half is for clients: an import must not have them refused.
        quota=config.log.spool_quota // 2,
        reserve=config.log.reserve,
        cipher=keys.spool if keys else None,
    )


@contextmanager
def _taker(config: RatchetConfig) -> Iterator["_Learner | _Ourselves"]:
    """Who takes rows from the spool into the log: a running learner, or this process."""
    try:
        # Asked first: a DuckLake lets in a second owner, but a spool has one reader.
        LearnerClient(config.learner_socket).select("SELECT 1")
    except LearnerDown:
        pass
    else:
        yield _Learner(config.spool)
        return
    with open_log(config) as store:
        yield _Ourselves(open_ingester(config, store, lambda: datetime.now(UTC)))


@dataclass(frozen=True, slots=True)
class _Learner:
    """A learner tails the spool; all there is to do is to wait for it."""

    spool: Path

    def relieve(self, asked: int, refusal: SpoolError | None) -> None:
        _wait(asked, refusal)

    def finish(self) -> None:
        """Until it has taken everything, so that whoever asks it next sees it."""
        left, since = self._segments(), time.monotonic()
        while left and time.monotonic() - since < PATIENCE_S:
            time.sleep(_LOOK_EVERY_S)
            if (now := self._segments()) < left:
                left, since = now, time.monotonic()
        if left:
            click.echo("some rows still wait in the spool; the learner takes them", err=True)

    def _segments(self) -> int:
        return sum(1 for _ in self.spool.glob(f"{WORKER}-*{SUFFIX}"))


@dataclass(frozen=True, slots=True)
class _Ourselves:
    """No learner runs: the rows are ingested here, between reading them."""

    ingester: Ingester

    def relieve(self, asked: int, refusal: SpoolError | None) -> None:
        if not self.ingester.run_once():
            _wait(asked, refusal)

    def finish(self) -> None:
        while self.ingester.run_once():
            pass


def _wait(asked: int, refusal: SpoolError | None) -> None:
    if refusal is None:
        return
    if asked * _LOOK_EVERY_S > PATIENCE_S:
        raise refusal
    time.sleep(_LOOK_EVERY_S)


@dataclass(slots=True)
class _Progress:
    """Says on standard error how far it is."""

    began: float = field(default_factory=time.monotonic)
    told: float = field(default_factory=time.monotonic)
    live: bool = field(default_factory=sys.stderr.isatty)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def tell(self, tally: Tally) -> None:
        if time.monotonic() - self.told > (_TELL_EVERY_S if self.live else 10 * _TELL_EVERY_S):
            self.told = time.monotonic()
            rate = tally.rows / self.seconds
            line = f"{tally.rows:,} rows, {rate:,.0f} a second, {tally.rejected:,} rejected"
            click.echo(f"\r{line}  " if self.live else line, err=True, nl=not self.live)

    def end(self, tally: Tally) -> None:
        line = f"{tally.rows:,} rows read, {tally.rejected:,} rejected"
        click.echo(f"\r{line:40}" if self.live else line, err=True)


def _summary(tally: Tally, seconds: float, rejects: Path) -> dict[str, Any]:
    return {
        "files": tally.files,
        "rows": tally.rows,
        "invocations": tally.records["invocation"],
        "feedback": tally.records["feedback"],
        "rejected": tally.rejected,
        "reasons": dict(tally.reasons.most_common(10)),
        "rejects": str(rejects) if tally.rejected else None,
        "seconds": round(seconds, 3),
        "rows_per_s": round(tally.rows / seconds) if seconds else 0,
    }


def print_import(told: dict[str, Any]) -> None:
    """The summary for people."""
    click.echo(
        f"{told['rows']:,} rows of {told['files']:,} files in {told['seconds']:.1f} s "
        f"({told['rows_per_s']:,} a second): {told['invocations']:,} invocations, "
        f"{told['feedback']:,} feedback; those that were in the log already were left out"
    )
    if told["rejected"]:
        click.echo(f"{told['rejected']:,} rows were rejected; {told['rejects']} holds them:")
        for reason, n in told["reasons"].items():
            click.echo(f"  {n:,} x {reason}")


def export(
    config: RatchetConfig, shape: str, selection: Selection, out: Path | None, *, answers: bool
) -> dict[str, int]:
    """Write ``selection`` to ``out``, or to standard output; how many rows of what.

    Raises ImportFailed when it cannot be written, StoreError.
    """
    with _source(config) as source:
        if shape == "parquet":
            if out is None:
                raise ImportFailed("Parquet goes to a folder: name one with -o")
            return parquet.write(source, selection, out, datetime.now(UTC))
        lines = jsonl.lines(source, selection, jsonl.Shape(shape), answers=answers)
        return {"rows": write_lines(lines, out)}


def selection_of(
    tenant: str, where: str | None, options: Mapping[str, Any], now: datetime
) -> Selection:
    """The rows that a filter in JSON and the options both mean. Raises ImportFailed."""
    try:
        asked = Filter.model_validate_json(where or "{}")
    except ValidationError as error:
        raise ImportFailed(f"--where: {explain(error, Filter)}") from error
    try:
        also = Filter.model_validate(options)
    except ValidationError as error:
        told = explain(error, Filter)
        for field, option in (("time.after", "--since"), ("time.before", "--until")):
            told = told.replace(field, option)
        raise ImportFailed(told) from error
    return Selection(tenant, Condition.all([one.sql(now) for one in (asked, also)]))


@contextmanager
def _source(config: RatchetConfig) -> Iterator[Source]:
    """The running learner, else the log itself."""
    client = LearnerClient(config.learner_socket, timeout_s=ANSWER_S)
    try:
        client.select("SELECT 1")
    except LearnerDown:
        pass
    else:
        yield Through(client)
        return
    with open_log(config) as store:
        yield store


@dataclass(frozen=True, slots=True)
class Through:
    """The log, through the learner that owns it."""

    client: LearnerClient

    def batches(
        self, sql: str, parameters: Sequence[Any] = (), *, rows: int = 10_000
    ) -> Iterator[pa.RecordBatch]:
        pieces = sql.split("?")
        written = itertools.chain(map(_literal, parameters), ("",))
        text = "".join(itertools.chain.from_iterable(zip(pieces, written, strict=True)))
        for batch in self.client.batches(text):
            for at in range(0, batch.num_rows, rows):
                yield batch.slice(at, rows)


def _literal(value: Any) -> str:
    if isinstance(value, datetime):
        return f"TIMESTAMP '{value.isoformat(sep=' ')}'"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return "NULL" if value is None else str(value)
