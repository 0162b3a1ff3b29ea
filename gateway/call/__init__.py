"""The calls: from a request that is read to an answer that is recorded and given."""

from gateway.call.calls import Calls
from gateway.call.worker import Worker

__all__ = ["Calls", "Worker"]
