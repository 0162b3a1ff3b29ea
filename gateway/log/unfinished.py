"""What was erased and is in the log all the same: another host let it in, not knowing yet."""

from datetime import UTC, datetime

from gateway.log.erasure import ROWS, SPOKEN, WHOLE, those
from gateway.log.record import Erasure
from gateway.log.store import Store

_HELD = f"""
WITH lately AS (FROM erasures WHERE ts >= ?),
taken AS (
  SELECT e.id, e.ts, e.tenant, e.scope, x.invocation_id, x.episode_id
  FROM lately e JOIN erased x ON x.erasure_id = e.id
),
held AS (
  SELECT e.id FROM lately e JOIN invocations i ON i.tenant = e.tenant AND i.id = e.invocation_id
  WHERE e.scope = '{ROWS}' OR {WHOLE}
  UNION ALL
  SELECT e.id FROM lately e
  JOIN invocations i ON i.tenant = e.tenant AND i.subject_id = e.subject_id AND i.ts <= e.ts
  WHERE e.scope = '{ROWS}' OR {WHOLE}
  UNION ALL
  SELECT t.id FROM taken t
  JOIN edits d ON d.tenant = t.tenant AND d.invocation_id = t.invocation_id
  WHERE t.scope = '{ROWS}'
  UNION ALL
  SELECT t.id FROM taken t JOIN feedback f
  ON f.tenant = t.tenant AND f.target = 'invocation' AND f.target_id = t.invocation_id
  WHERE t.scope = '{ROWS}' OR (f.ts <= t.ts AND {SPOKEN})
  UNION ALL
  SELECT t.id FROM taken t JOIN feedback f
  ON f.tenant = t.tenant AND f.target = 'episode' AND f.target_id = t.episode_id AND f.ts <= t.ts
  WHERE t.scope = '{ROWS}' AND NOT EXISTS (
    SELECT 1 FROM invocations i WHERE i.tenant = t.tenant AND i.episode_id = t.episode_id)
)
SELECT id FROM held
"""  # noqa: S608 - our own constants


def unfinished(store: Store, since: datetime) -> list[Erasure]:
    """The erasures asked for since then of which the log holds something."""
    moment = since.astimezone(UTC).replace(tzinfo=None)
    return those(store, f"id IN ({_HELD})", [moment])
