"""Which secret opens which key: what the hot path asks of each request."""

from collections.abc import Callable, Mapping
from datetime import datetime

from gateway.errors import Unauthorized
from gateway.keys.key import Key
from gateway.keys.store import hashed

_REMEMBERED = 10_000
"""Headers at most; one secret can be spelt with more or less white space."""

_TOLD_FROM = 20
"""A shorter secret is no key of ours, and its last letters may be all there is to it."""


class KeyBook:
    """One state of the keys' table. A secret is hashed once, then found by its header's bytes."""

    def __init__(self, keys: Mapping[str, Key], *, now: Callable[[], datetime]) -> None:
        self._keys = keys
        self._now = now
        self._bearers: dict[bytes, Key] = {}
        self._bare: dict[bytes, Key] = {}

    def key(self, headers: Mapping[bytes, bytes]) -> Key:
        """The key of ``Authorization: Bearer``, else of ``x-api-key``. Raises Unauthorized."""
        sent = headers.get(b"authorization")
        if sent is None:
            sent, known = headers.get(b"x-api-key", b""), self._bare
        else:
            known = self._bearers
        key = known.get(sent)
        if key is None:
            key = self._found(_bearer(sent) if known is self._bearers else sent)
            if len(known) >= _REMEMBERED:
                known.clear()
            known[sent] = key
        if key.expires_at is not None and key.expires_at <= self._now():
            raise Unauthorized(
                f"This API key expired at {key.expires_at:%Y-%m-%d %H:%M:%S} UTC. "
                "`ratchet keys create` makes a new one."
            )
        return key

    def _found(self, sent: bytes) -> Key:
        secret = sent.decode("latin-1").strip()
        if not secret:
            raise Unauthorized(
                "You didn't provide an API key. Send it as `Authorization: Bearer YOUR_KEY`, or "
                "as `x-api-key: YOUR_KEY`."
            )
        key = self._keys.get(hashed(secret))
        if key is None:
            raise Unauthorized(
                f"Incorrect API key provided: {_told(secret)}. `ratchet keys create` makes one."
            )
        return key


def _bearer(header: bytes) -> bytes:
    """Its secret; empty when the header is of another scheme."""
    scheme, _, secret = header.partition(b" ")
    return secret if scheme.lower() == b"bearer" else b""


def _told(secret: str) -> str:
    """Enough to tell which of one's keys it is."""
    tail = secret[-4:]
    if len(secret) < _TOLD_FROM or not tail.isascii() or not tail.isprintable():
        return "***"
    return f"{'sk-' if secret.startswith('sk-') else ''}...{tail}"
