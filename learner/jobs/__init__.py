"""Turns and leases: what is being learnt, by whom, and how it went."""

from learner.jobs.lease import Lease, LeaseStore
from learner.jobs.store import TurnStore
from learner.jobs.turn import END, Phase, Turn, TurnState

__all__ = ["END", "Lease", "LeaseStore", "Phase", "Turn", "TurnState", "TurnStore"]
