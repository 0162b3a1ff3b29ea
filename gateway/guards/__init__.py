"""Who looks at calls before the engine sees them, and at answers before the client does."""

from gateway.guards.guards import Checked, Guards

__all__ = ["Checked", "Guards"]
