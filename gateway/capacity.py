"""How many calls one worker has under way, and whose: excess is refused at once, never queued.

A call that waits for a place is worth less every second and costs memory meanwhile; refused in
microseconds with ``Retry-After`` it costs neither. The engines have queues of their own, so a
bound on the calls under way bounds how long those get, and the engines stay busy: goodput holds
when twice as much is offered as they can do.

**The rule.** With n tenants that have calls under way, the one that asks among them:

* while fewer than 9/10 of the places are taken, anybody is let in;
* while fewer than 19/20 are taken, who has less than 1/n of those 9/10, its share;
* while any is free, who has less than 1/n of the last 20th.

**What follows.** A tenant alone may use 9/10. Tenants that all want more get 1/n each: who has
more than its share gets no place that it gives back, until the others have theirs. And a quiet
tenant finds its place whatever the others offer: beyond 19/20 a tenant is let in only while it has
less than 1/n of the last 20th in all, so n tenants cannot use that up, and who has less than its
nth of it still finds a place free. (Where n grows meanwhile, the earlier ones had larger parts:
five tenants may come one after another before that fills it.) No call is ever interrupted.
"""

from gateway.errors import Overloaded

_FULL_S = 1.0
_GREEDY_S = 2.0


class Capacity:
    """Counts of one worker; for one thread. Every step takes the same time."""

    __slots__ = ("_common", "_last", "_limit", "_tenants", "running")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._common = max(1, limit - max(1, limit // 10))
        self._last = max(1, limit // 20)
        self._tenants: dict[str, int] = {}
        self.running = 0
        """Calls under way."""

    @property
    def limit(self) -> int:
        """Calls under way at most."""
        return self._limit

    def enter(self, tenant: str) -> None:
        """A call begins; ``leave`` must follow. Raises Overloaded; then it does not begin."""
        tenants = self._tenants
        mine = tenants.get(tenant, 0)
        if self.running >= self._common and self.running >= self._room(mine):
            raise self._refusal(tenant)
        tenants[tenant] = mine + 1
        self.running += 1

    def leave(self, tenant: str) -> None:
        """A call of the tenant's is over."""
        left = self._tenants[tenant] - 1
        if left:
            self._tenants[tenant] = left
        else:
            del self._tenants[tenant]
        self.running -= 1

    def _room(self, mine: int) -> int:
        """How many places a tenant that has so many calls may see taken and still get one."""
        active = len(self._tenants) + (not mine)
        if mine * active < self._last:
            return self._limit
        return self._limit - self._last if mine * active < self._common else self._common

    def _refusal(self, tenant: str) -> Overloaded:
        if self.running >= self._limit:
            return Overloaded(
                f"The gateway is at capacity: {self._limit} calls are under way. "
                "Please try again shortly.",
                retry_after_s=_FULL_S,
            )
        return Overloaded(
            f"The gateway is nearly at capacity and `{tenant}` has {self._tenants[tenant]} of "
            f"{self.running} calls under way, more than its share. Please try again shortly.",
            retry_after_s=_GREEDY_S,
        )
