from datetime import timedelta

from learner.jobs import Phase, Turn, TurnState
from learner.scheduler import RETRY_AFTER_FAILURE, due
from learner.sections import WhenSection
from tests.factories import NOW

HOUR = timedelta(hours=1)


def turn(state: TurnState, *, ago: timedelta) -> Turn:
    at = NOW - ago
    return Turn("t1", "helpdesk", state, Phase.RFT, "test", at, at, at)


def test_enough_new_samples_start_a_turn() -> None:
    when = WhenSection(new_samples=100)

    assert due(when, None, 99, NOW) is None
    assert due(when, None, 100, NOW) == "100 new samples"


def test_a_schedule_starts_a_turn_if_there_is_anything_new() -> None:
    when = WhenSection(every=HOUR)
    early, late = (turn(TurnState.REJECTED, ago=HOUR * share) for share in (0.9, 1.0))

    assert due(when, late, 0, NOW) is None
    assert due(when, early, 5, NOW) is None
    assert due(when, late, 5, NOW) is not None
    assert due(when, None, 5, NOW) is not None


def test_one_turn_at_a_time() -> None:
    running = turn(TurnState.RUNNING, ago=HOUR)

    assert due(WhenSection(new_samples=1), running, 1000, NOW) is None


def test_a_failed_turn_is_tried_again_but_not_at_once() -> None:
    when = WhenSection(new_samples=1)
    just_now = turn(TurnState.FAILED, ago=timedelta(seconds=1))
    a_while_ago = turn(TurnState.FAILED, ago=RETRY_AFTER_FAILURE)

    assert due(when, just_now, 10, NOW) is None
    assert due(when, a_while_ago, 10, NOW) is not None
