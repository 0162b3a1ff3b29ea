"""The questions asked of the log again and again."""

from gateway.errors import BadQuery
from gateway.log.chats import GIVEN, LEARNABLE
from gateway.log.query import MOST, Kind, NamedQuery, Parameter

_TENANT = Parameter("tenant", Kind.TEXT, None, "of this tenant only")
_WHERE = Parameter("where", Kind.FILTER, None, "a filter, as JSON")
_AFTER = Parameter("after", Kind.TIME, "1970-01-01", "entered the log after this: a watermark")
_BY = Parameter(
    "by",
    Kind.CHOICES,
    "day",
    "what is counted together; one or several, with commas",
    {
        "day": "date_trunc('day', i.ts)",
        "hour": "date_trunc('hour', i.ts)",
        "tenant": "i.tenant",
        "key": "i.key_id",
        "task": "i.task",
        "alias": "i.request_model",
        "model": "i.request_model",
        "adapter": "i.adapter",
        "arm": "i.arm",
        "operation": "i.operation_name",
        "engine": "i.engine",
        "origin": "i.origin",
    },
)


def _since(default: str) -> Parameter:
    return Parameter("since", Kind.TIME, default, "from then on, or from this long ago")


def _limit(default: int) -> Parameter:
    return Parameter("limit", Kind.INTEGER, str(default), f"rows at most; {MOST} is the most")


def _over_calls(
    name: str, about: str, parameters: tuple[Parameter, ...], template: str
) -> NamedQuery:
    """A query of ``invocations i``: ``{meant}`` in it is the tenant and the filter asked for.

    So are ``{given}`` and ``{learnable}`` the conditions of ``gateway.log.chats``.
    """
    meant = "({tenant}::VARCHAR IS NULL OR i.tenant = {tenant}) AND {where}"
    limit = parameters[-1]
    parameters = (*parameters[:-1], _TENANT, _WHERE, limit)
    for word, condition in (("meant", meant), ("given", GIVEN), ("learnable", LEARNABLE)):
        template = template.replace(f"{{{word}}}", condition)
    return NamedQuery(name, about, parameters, template)


_TAIL = _over_calls(
    "tail",
    "the newest calls, the newest last",
    (_AFTER, _limit(20)),
    """
SELECT * FROM (
  SELECT i.ts, i.id, i.request_model AS model, i.arm, i.adapter, i.status,
    i.input_tokens, i.output_tokens, round(i.duration, 3) AS duration, i.error_type, i.ingest_ts
  FROM invocations i WHERE i.ingest_ts > {after} AND {meant}
  ORDER BY i.id DESC LIMIT {limit}
) ORDER BY id
""",
)
_USAGE = _over_calls(
    "usage",
    "calls, errors, tokens, cost and seconds: by day, tenant, alias, adapter and more",
    (_BY, _since("30d"), _limit(1000)),
    """
SELECT {by}, count(*) AS calls, count(i.error_type) AS errors,
  sum(i.input_tokens)::BIGINT AS input_tokens, sum(i.output_tokens)::BIGINT AS output_tokens,
  sum(i.cache_read_input_tokens)::BIGINT AS cache_read_input_tokens,
  sum(i.reasoning_output_tokens)::BIGINT AS reasoning_output_tokens, sum(i.cost) AS cost,
  approx_quantile(i.duration, [0.5, 0.95]) AS duration_p50_p95,
  approx_quantile(i.time_to_first_chunk, [0.5, 0.95]) AS first_chunk_p50_p95
FROM invocations i WHERE i.ts >= {since} AND {meant}
GROUP BY ALL ORDER BY ALL LIMIT {limit}
""",
)
_SLOWEST = _over_calls(
    "slowest",
    "the calls that took longest",
    (_since("1d"), _limit(20)),
    """
SELECT i.duration, i.time_to_first_chunk, i.id, i.ts, i.request_model AS model, i.adapter,
  i.engine, i.status, i.input_tokens, i.output_tokens
FROM invocations i WHERE i.ts >= {since} AND i.duration IS NOT NULL AND {meant}
ORDER BY i.duration DESC LIMIT {limit}
""",
)
_ERRORS = _over_calls(
    "errors",
    "what went wrong, how often, and the last call it happened to",
    (_since("7d"), _limit(100)),
    """
SELECT i.error_type, i.status, i.request_model AS model, i.engine, count(*) AS calls,
  max(i.ts) AS last, arg_max(i.id, i.ts) AS last_id
FROM invocations i WHERE i.ts >= {since} AND i.error_type IS NOT NULL AND {meant}
GROUP BY ALL ORDER BY calls DESC, last DESC LIMIT {limit}
""",
)
_EPISODES = _over_calls(
    "episodes",
    "the newest episodes, by what they did since then",
    (_since("1d"), _limit(20)),
    """
SELECT i.episode_id, i.tenant, i.task, min(i.ts) AS started, max(i.ts) AS ended,
  count(*) AS steps, count(i.error_type) AS errors, sum(i.input_tokens)::BIGINT AS input_tokens,
  sum(i.output_tokens)::BIGINT AS output_tokens, sum(i.cost) AS cost
FROM invocations i WHERE i.ts >= {since} AND {given} AND {meant}
GROUP BY ALL ORDER BY ended DESC LIMIT {limit}
""",
)
_FEEDBACK = _over_calls(
    "feedback",
    "current feedback, by metric and by what answered; an episode counts for its first call",
    (_since("30d"), _limit(1000)),
    """
WITH said AS (
  SELECT tenant, target, target_id, name, source, score_value
  FROM feedback_current WHERE ts >= {since}
), openings AS (
  SELECT i.tenant, i.episode_id, arg_min_null(i.request_model, i.ts) AS request_model,
    arg_min_null(i.adapter, i.ts) AS adapter
  FROM invocations i
  WHERE i.episode_id IN (SELECT target_id FROM said WHERE target = 'episode') AND {given}
    AND {meant}
  GROUP BY ALL
), answered AS (
  SELECT s.name, s.source, s.score_value, i.request_model, i.adapter
  FROM said s JOIN invocations i ON i.tenant = s.tenant AND i.id = s.target_id
  WHERE s.target = 'invocation' AND {meant}
  UNION ALL
  SELECT s.name, s.source, s.score_value, o.request_model, o.adapter
  FROM said s JOIN openings o ON o.tenant = s.tenant AND o.episode_id = s.target_id
  WHERE s.target = 'episode'
)
SELECT name, request_model AS model, adapter, source, count(*) AS given,
  count(score_value) AS scored, avg(score_value) AS mean, stddev_samp(score_value) AS deviation
FROM answered GROUP BY ALL ORDER BY ALL LIMIT {limit}
""",
)
_CANDIDATES = _over_calls(
    "candidates",
    "good calls that may be learnt from and are in no dataset yet, as they entered the log",
    (
        _AFTER,
        Parameter("until", Kind.TIME, "60s", "and by then; the margin covers late ingesters"),
        _limit(1000),
    ),
    """
SELECT i.id, i.ts, i.ingest_ts, i.tenant, i.task, i.request_model AS model, i.adapter,
  i.prompt_hash
FROM invocations i
WHERE i.ingest_ts > {after} AND i.ingest_ts <= {until} AND {learnable}
  AND i.error_type IS NULL AND {meant}
  AND i.id NOT IN (SELECT invocation_id FROM dataset_items)
ORDER BY i.ingest_ts, i.id LIMIT {limit}
""",
)
_INCIDENTS = NamedQuery(
    "incidents",
    "what the log lacks or had to mend, the newest first",
    (_since("30d"), _limit(100)),
    """
SELECT ts, kind, n, segment, at_byte, detail FROM incidents
WHERE ts >= {since} ORDER BY id DESC LIMIT {limit}
""",
)
_STORAGE = NamedQuery(
    "storage",
    "what the log holds, how fresh it is, what it lacks, and which erasures are not finished",
    (_since("1d"),),
    """
SELECT (SELECT count(*) FROM invocations) AS invocations,
  (SELECT count(*) FROM feedback) AS feedback, (SELECT max(ts) FROM invocations) AS newest,
  (SELECT max(ingest_ts) FROM invocations) AS ingested,
  (SELECT approx_quantile(epoch(ingest_ts - ts) - coalesce(duration, 0), 0.95)
    FROM invocations WHERE ts >= {since} AND origin = 'gateway') AS ingest_lag_p95,
  (SELECT count(DISTINCT segment) FROM spool_segments) AS segments,
  (SELECT coalesce(sum(n), 0)::BIGINT FROM incidents WHERE kind = 'dropped') AS dropped,
  (SELECT coalesce(sum(n), 0)::BIGINT FROM incidents WHERE kind = 'quarantined') AS quarantined,
  (SELECT count(*) FROM incidents WHERE kind = 'healed') AS healed,
  (SELECT count(*) FROM erasures e WHERE NOT EXISTS (
    SELECT 1 FROM erasure_steps s WHERE s.erasure_id = e.id AND s.step = 'removed'
  )) AS erasures_open
""",
)

QUERIES = {
    one.name: one
    for one in (
        _TAIL,
        _USAGE,
        _SLOWEST,
        _ERRORS,
        _EPISODES,
        _FEEDBACK,
        _CANDIDATES,
        _INCIDENTS,
        _STORAGE,
    )
}


def query(name: str) -> NamedQuery:
    """The query of that name. Raises BadQuery, which lists those there are."""
    if name not in QUERIES:
        raise BadQuery(f"there is no query {name!r}; there are {', '.join(QUERIES)}")
    return QUERIES[name]
