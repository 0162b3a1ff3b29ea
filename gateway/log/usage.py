"""What a tenant's calls took, bucket by bucket of time: tokens, requests and cost."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gateway.log.filter import Condition
from gateway.log.record import GATEWAY
from gateway.log.store import Store

GROUPS: Mapping[str, str] = {
    "api_key_id": "i.key_id",
    "model": "i.request_model",
    "adapter": "i.adapter",
    "arm": "i.arm",
    "task": "i.task",
    "operation": "i.operation_name",
    "user_id": "i.subject_id",
}
"""What can be counted apart, in the words of the API."""

_OBJECT = "organization.usage.completions.result"
_SUMS = """
sum(coalesce(i.input_tokens, 0))::BIGINT AS input_tokens,
sum(coalesce(i.output_tokens, 0))::BIGINT AS output_tokens,
sum(coalesce(i.cache_read_input_tokens, 0))::BIGINT AS input_cached_tokens,
sum(coalesce(i.reasoning_output_tokens, 0))::BIGINT AS output_reasoning_tokens,
count(*) AS num_model_requests, sum(i.cost) AS cost
"""


@dataclass(frozen=True, slots=True)
class Span:
    """From ``start`` on, before ``end``: seconds since 1970, cut at multiples of ``width``."""

    start: int
    end: int
    width: int

    def cut(self) -> Iterator[tuple[int, int]]:
        """Each bucket's start and end; the first and the last may be shorter."""
        start = self.start
        while start < self.end:
            end = min(start - start % self.width + self.width, self.end)
            yield start, end
            start = end


def buckets(
    store: Store, span: Span, *, tenant: str, key: str | None, by: Sequence[str]
) -> list[dict[str, Any]]:
    """OpenAI's usage buckets over the calls of a tenant, or of one of its keys alone.

    Every call that the gateway answered or refused on behalf of a key is a request in the bucket
    it began in, a shadow's too; imports are none. ``by`` names GROUPS.
    """
    own = [
        Condition("i.tenant = ? AND i.origin = ?", [tenant, GATEWAY]),
        Condition("i.ts >= ? AND i.ts < ?", [_moment(span.start), _moment(span.end)]),
    ]
    if key is not None:
        own.append(Condition("i.key_id = ?", [key]))
    where = Condition.all(own)
    groups = "".join(f"{GROUPS[name]} AS {name}, " for name in by)
    sql = (
        f"SELECT epoch_us(i.ts) // {span.width * 1_000_000} AS bucket, {groups}{_SUMS} "  # noqa: S608
        f"FROM invocations i WHERE {where.text} GROUP BY ALL ORDER BY ALL"
    )
    results: dict[int, list[dict[str, Any]]] = {}
    for row in store.rows(sql, where.parameters):
        told = {"object": _OBJECT, **dict.fromkeys(GROUPS), **row}
        results.setdefault(told.pop("bucket"), []).append(told)
    return [
        {
            "object": "bucket",
            "start_time": start,
            "end_time": end,
            "results": results.get(start // span.width, []),
        }
        for start, end in span.cut()
    ]


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
