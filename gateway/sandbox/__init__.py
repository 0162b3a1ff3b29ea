"""Python that nobody vouches for, run where it can do no harm. Needs Linux and bubblewrap."""

from gateway.sandbox.limits import Limits
from gateway.sandbox.room import INSTALL, lacking
from gateway.sandbox.sandbox import Sandbox

__all__ = ["INSTALL", "Limits", "Sandbox", "lacking"]
