"""The stages of an adapter version and the moves between them."""

from collections.abc import Mapping
from enum import StrEnum

from serving.errors import StaleStage


class Stage(StrEnum):
    """How far an adapter version has come. Only gated and later ones enter the clients' engine."""

    CANDIDATE = "candidate"  # trained and checked, no verdict yet
    GATED = "gated"  # a verdict says promote; loaded, but answers nobody yet
    CANARY = "canary"  # answers a share of the alias's requests
    LIVE = "live"  # answers the alias; at most one version is
    RETIRED = "retired"  # was live; its successor answers
    REJECTED = "rejected"  # a verdict, a probe or a canary said no; final


MOVES: Mapping[Stage, frozenset[Stage]] = {
    Stage.CANDIDATE: frozenset({Stage.GATED, Stage.REJECTED}),
    Stage.GATED: frozenset({Stage.CANARY, Stage.LIVE, Stage.REJECTED}),
    Stage.CANARY: frozenset({Stage.LIVE, Stage.REJECTED}),
    Stage.LIVE: frozenset({Stage.RETIRED}),
    Stage.RETIRED: frozenset({Stage.LIVE}),  # rollback
    Stage.REJECTED: frozenset(),
}
"""Where a version may go from each stage; everything else is refused."""

ANSWERING = frozenset({Stage.CANARY, Stage.LIVE})
"""Stages in which a version answers clients: leaving them starts its drain."""


def check_move(label: str, old: Stage, new: Stage) -> None:
    """Raise StaleStage unless ``label`` may go from ``old`` to ``new``."""
    if new not in MOVES[old]:
        raise StaleStage(f"{label} is {old}: it cannot become {new}")
