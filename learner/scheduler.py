"""When a turn starts. APScheduler only ticks; what is due is decided here, from our tables."""

from datetime import datetime, timedelta

from learner.jobs import Turn, TurnState
from learner.sections import WhenSection

RETRY_AFTER_FAILURE = timedelta(minutes=15)
"""A failed turn is tried again, but not in a hot loop."""


def due(when: WhenSection, last: Turn | None, new_samples: int, now: datetime) -> str | None:
    """Why a turn should start now, in words; None when it should not.

    ``new_samples`` counts those that no ended turn has learnt from.
    """
    if last is not None and last.state is TurnState.RUNNING:
        return None
    if (
        last is not None
        and last.state is TurnState.FAILED
        and now - last.changed_at < RETRY_AFTER_FAILURE
    ):
        return None
    if when.new_samples is not None and new_samples >= when.new_samples:
        return f"{new_samples} new samples"
    if when.every is not None and new_samples > 0:
        since = None if last is None else now - last.started_at
        if since is None or since >= when.every:
            return f"every {when.every}, with {new_samples} new samples"
    return None
