"""What a guard says, as JSON, and what is made of it."""

from typing import Annotated, Literal

import msgspec

from gateway.log.record import Verdict

Stage = Literal["before", "after"]

MAX_REASON = 1000
"""Characters of a reason that are kept."""


class Malformed(ValueError):
    """What a guard said is no verdict; the message says why."""


class _Said(msgspec.Struct):
    action: Literal["allow", "block", "redact", "flag"]
    reason: str | None = None
    score: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    request: msgspec.Raw = msgspec.Raw(b"null")
    response: msgspec.Raw = msgspec.Raw(b"null")


_decoder = msgspec.json.Decoder(_Said)


def read(said: bytes, *, guard: str, stage: Stage) -> tuple[Verdict, bytes | None]:
    """The verdict, and what replaces what the guard saw when it redacts. Raises Malformed."""
    try:
        if not said.isascii():
            said.decode()
        heard = _decoder.decode(said)
    except ValueError as error:
        raise Malformed(f"no verdict: {error}") from error
    replacement = None
    if heard.action == "redact":
        name = "request" if stage == "before" else "response"
        replacement = bytes(heard.request if stage == "before" else heard.response).strip()
        if not replacement.startswith(b"{"):
            raise Malformed(f"it redacts and gives no {name} instead")
    reason = heard.reason and heard.reason[:MAX_REASON]
    verdict = Verdict(
        guard=guard, stage=stage, action=heard.action, reason=reason, score=heard.score
    )
    return verdict, replacement
