"""Why a key is not let in, in the words that OpenAI's clients know."""

from dataclasses import dataclass

from gateway.errors import BudgetSpent, RateLimited
from gateway.keys import Budget, Key, Window
from gateway.limits.ticket import MONEY, span
from gateway.limits.window import MS, NEVER, SECOND, moment

_SOON_S = 1.0


def requests_too_fast(key: Key, *, used: int, wait: int) -> RateLimited:
    """In ``wait`` nanoseconds the same request would be let in, were it alone."""
    return RateLimited(
        f"Rate limit reached for `{key.name}` on requests per min (RPM): "
        f"Limit {key.limits.requests_per_minute}, Used {used}, Requested 1. "
        f"Please try again in {_span(wait)}.",
        retry_after_s=wait / SECOND,
    )


def tokens_too_fast(key: Key, *, used: int, requested: int, wait: int) -> RateLimited:
    """The same for tokens."""
    return RateLimited(
        f"Rate limit reached for `{key.name}` on tokens per min (TPM): "
        f"Limit {key.limits.tokens_per_minute}, Used {used}, Requested {requested}. "
        f"Please try again in {_span(wait)}.",
        retry_after_s=wait / SECOND,
    )


def too_large(key: Key, *, requested: int) -> RateLimited:
    """No waiting helps."""
    return RateLimited(
        f"Request too large for `{key.name}` on tokens per min (TPM): "
        f"Limit {key.limits.tokens_per_minute}, Requested {requested}. "
        "The input or output tokens must be reduced in order to run successfully."
    )


def too_many(key: Key, *, used: int) -> RateLimited:
    return RateLimited(
        f"Rate limit reached for `{key.name}` on concurrent requests: "
        f"Limit {key.limits.concurrency}, Used {used}, Requested 1. "
        f"Please try again in {_SOON_S:g}s.",
        retry_after_s=_SOON_S,
    )


def _span(nanoseconds: int) -> str:
    return span(-(-nanoseconds // MS)).decode()


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request wanted of a budget that has no room for it."""

    used: int
    held: int
    requested: int
    now: int
    until: int
    """When the budget begins anew."""


def tokens_spent(key: Key, budget: Budget, claim: Claim) -> BudgetSpent:
    return _spent(key, f"{budget.tokens} tokens", budget.window, budget.tokens or 0, claim, 1)


def money_spent(key: Key, budget: Budget, claim: Claim) -> BudgetSpent:
    """The claim's amounts are in ``MONEY`` parts of the currency."""
    limit = round((budget.money or 0.0) * MONEY)
    return _spent(key, f"{budget.money:g}", budget.window, limit, claim, MONEY)


def _spent(  # noqa: PLR0913, PLR0917 - one budget's, told apart above
    key: Key, amount: str, window: Window, limit: int, claim: Claim, unit: int
) -> BudgetSpent:
    retry: float | None
    if claim.used < limit and claim.used + claim.requested <= limit:
        then, retry = "Please try again when running requests are over.", _SOON_S
    elif claim.until == NEVER:
        then, retry = "It does not begin anew.", None
    else:
        then = f"It begins anew at {moment(claim.until):%Y-%m-%dT%H:%M:%SZ}."
        retry = (claim.until - claim.now) / SECOND
    per = "in total" if window is Window.TOTAL else f"per {window}"
    return BudgetSpent(
        f"You exceeded your current quota: `{key.name}` has a budget of {amount} {per}. "
        f"Used {claim.used / unit:.9g}, held by running requests {claim.held / unit:.9g}, "
        f"requested {claim.requested / unit:.9g}. {then}",
        retry_after_s=retry,
    )
