"""Erasures as their tenants see them: asked for, and told with a receipt.

The receipt names what had been made of the erased calls: dataset snapshots, which are rebuilt,
and adapters, whose weights only a person can judge.
"""

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from gateway.errors import RateLimited, StoreError
from gateway.log.erasure import DELETED
from gateway.log.record import Erasure, Record, new_id
from gateway.log.store import Store
from gateway.log.subject import SubjectKey
from learner.dataset.rebuild import OF
from learner.upkeep import REMOVED, Upkeep
from serving.registry import AdapterVersion, Registry

logger = logging.getLogger(__name__)

REMOVAL_S = 30.0
"""How long whoever wants it removed now waits for that; it goes on all the same."""

REMOVAL_GAP = timedelta(minutes=10)
"""From the end of a removal that was asked for to the next one: each writes the log anew."""

_ROWS = """
SELECT e.id::VARCHAR AS id, e.ts, e.tenant, e.scope, e.subject_id,
  e.invocation_id::VARCHAR AS invocation_id, e.reason,
  (SELECT count(DISTINCT x.invocation_id) FROM erased x WHERE x.erasure_id = e.id) AS invocations,
  (SELECT sum(s.feedback) FROM erasure_steps s WHERE s.erasure_id = e.id)::BIGINT AS feedback,
  (SELECT max(s.ts) FROM erasure_steps s WHERE s.erasure_id = e.id AND s.step = 'deleted')
    AS deleted_at,
  (SELECT max(s.ts) FROM erasure_steps s WHERE s.erasure_id = e.id AND s.step = 'removed')
    AS removed_at
FROM erasures e
"""
_DATASETS = """
SELECT DISTINCT d.id::VARCHAR AS id, d.sha256 FROM datasets d
JOIN dataset_items i ON i.dataset_id = d.id
WHERE i.invocation_id IN (SELECT invocation_id FROM erased WHERE erasure_id = ?)
ORDER BY 1
"""
_REBUILT = f"SELECT query, sha256 FROM datasets WHERE query LIKE '%{OF}%' ORDER BY ts"  # noqa: S608


@dataclass(frozen=True, slots=True)
class Whom:
    """One of them: whom, or what, to forget. ``user`` is never written down."""

    user: str | None = None
    subject_id: str | None = None
    invocation_id: UUID | None = None


class Erasures:
    """Takes erasures and tells how far each is. From any thread."""

    def __init__(  # noqa: PLR0913 - what an erasure reaches
        self,
        store: Store,
        write: Callable[[Record], None],
        upkeep: Upkeep,
        registry: Registry,
        subjects: SubjectKey,
        *,
        datasets: Path,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._write = write
        self._upkeep = upkeep
        self._registry = registry
        self._subjects = subjects
        self._datasets = datasets
        self._now = now
        self._remover = ThreadPoolExecutor(1, "removal")
        self._removing = threading.Lock()
        self._removed_at: datetime | None = None

    def ask(
        self,
        whom: Whom,
        *,
        tenant: str,
        reason: str | None = None,
        remove_now: bool = False,
        erasure_id: UUID | None = None,
    ) -> dict[str, Any]:
        """Erase, and the receipt. Nothing found is an erasure, too: of what turns up late.

        An ``erasure_id`` that was taken before is answered with its receipt, as it is by now.
        Raises RateLimited while another removal runs or so soon after it, or SpoolError, when it
        was not taken;
        StoreError when it was, but the log cannot be read right now.
        """
        known = None if erasure_id is None else self.get(str(erasure_id), tenant=tenant)
        if known is not None:
            return known
        erasure = self._erasure(whom, tenant, reason, erasure_id or new_id())
        if remove_now:
            self._remove_with(erasure)
        else:
            self._write(erasure)
        receipt = self.get(str(erasure.id), tenant=tenant)
        if receipt is None:
            raise StoreError(f"erasure {erasure.id} was taken, but is not in the log yet")
        return receipt

    def get(self, name: str, *, tenant: str) -> dict[str, Any] | None:
        """The receipt; None for one that this tenant never asked for."""
        try:
            identity = str(UUID(name))
        except ValueError:
            return None
        found = self._store.rows(f"{_ROWS} WHERE e.id = ? AND e.tenant = ?", [identity, tenant])
        return self._receipt(found[0]) if found else None

    def recent(
        self, *, tenant: str, limit: int = 20, after: str | None = None
    ) -> list[dict[str, Any]]:
        """The tenant's receipts, the newest first, from behind ``after``."""
        where, values = "e.tenant = ?", [tenant]
        if after is not None:
            where, values = f"{where} AND e.id < ?", [tenant, after]
        sql = f"{_ROWS} WHERE {where} ORDER BY e.id DESC LIMIT {limit:d}"
        return [self._receipt(row) for row in self._store.rows(sql, values)]

    def remove(self) -> int:
        """Remove physically what any tenant has erased; how many erasures wait for a turn's end.

        Raises StoreError; it can be repeated.
        """
        return self._upkeep.remove()

    def close(self) -> None:
        """Wait for a removal that runs."""
        self._remover.shutdown()

    def _erasure(self, whom: Whom, tenant: str, reason: str | None, identity: UUID) -> Erasure:
        subject = whom.subject_id
        if whom.user is not None:
            subject = self._subjects.of(tenant, whom.user)
        return Erasure(
            id=identity,
            ts=self._now(),
            tenant=tenant,
            subject_id=subject,
            invocation_id=whom.invocation_id,
            reason=reason,
        )

    def _remove_with(self, erasure: Erasure) -> None:
        """Take it, and remove what was erased: a whole compaction, so that one runs at a time.

        What fails is due again within a day, so that it is no fault of the erasure.
        """
        if not self._removing.acquire(blocking=False):
            raise RateLimited(
                "Another removal is running, and nothing was taken. Please send this again when "
                "it is done, or without remove_now: then it is removed within a day.",
                param="remove_now",
                retry_after_s=REMOVAL_S,
            )
        try:
            self._await_turn()
            self._write(erasure)
            removal = self._remover.submit(self._remove)
        except BaseException:
            self._removing.release()
            raise
        try:
            removal.result(timeout=REMOVAL_S)
        except TimeoutError:
            logger.info("the removal takes longer than %.0f s; it goes on", REMOVAL_S)
        except StoreError:
            logger.exception("the removal failed; it is repeated within a day")

    def _await_turn(self) -> None:
        """Raises RateLimited when the last removal is not long enough ago."""
        if self._removed_at is None:
            return
        wait = self._removed_at + REMOVAL_GAP - self._now()
        if timedelta(0) < wait <= REMOVAL_GAP:  # longer only when the clock was set back
            raise RateLimited(
                "A removal was done just now, and nothing was taken. Please send this again in "
                f"{wait.total_seconds():.0f} s, or without remove_now: then it is removed within "
                "a day.",
                param="remove_now",
                retry_after_s=wait.total_seconds(),
            )

    def _remove(self) -> None:
        try:
            self._upkeep.remove()
        finally:
            self._removed_at = self._now()
            self._removing.release()

    def _receipt(self, row: Mapping[str, Any]) -> dict[str, Any]:
        datasets = list(self._told_datasets(row["id"]))
        digests = {one["sha256"] for one in datasets}
        removed_at = row["removed_at"]
        if removed_at is not None and removed_at < row["deleted_at"]:
            removed_at = None  # more of it turned up since
        return {
            "object": "erasure",
            "id": row["id"],
            "created_at": _seconds(row["ts"]),
            "status": DELETED if removed_at is None else REMOVED,
            "removed_at": _seconds(removed_at),
            "tenant": row["tenant"],
            "scope": row["scope"],
            "subject_id": row["subject_id"],
            "invocation_id": row["invocation_id"],
            "reason": row["reason"],
            "invocations": row["invocations"],
            "feedback": row["feedback"] or 0,
            "datasets": datasets,
            "adapters": [_told_adapter(one) for one in self._trained_on(digests)],
        }

    def _told_datasets(self, erasure: str) -> Iterator[dict[str, Any]]:
        became = {
            row["query"].rpartition(OF)[2]: row["sha256"] for row in self._store.rows(_REBUILT)
        }
        for row in self._store.rows(_DATASETS, [erasure]):
            newest = row["sha256"]
            while newest in became:
                newest = became[newest]
            yield {
                "id": row["id"],
                "sha256": row["sha256"],
                "rebuilt_as": None if newest == row["sha256"] else newest,
                "removed": not (self._datasets / f"{row['sha256']}.parquet").exists(),
            }

    def _trained_on(self, digests: Collection[str]) -> Iterator[AdapterVersion]:
        for alias in self._registry.aliases() if digests else ():
            for version in self._registry.versions(alias.name):
                if version.lineage.get("dataset") in digests:
                    yield version


def _told_adapter(version: AdapterVersion) -> dict[str, Any]:
    return {
        "alias": version.alias,
        "version": version.version,
        "served_name": version.served_name,
        "stage": str(version.stage),
    }


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.replace(tzinfo=UTC).timestamp())
