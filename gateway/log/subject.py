"""Names that clients give, and what the log calls them: subjects, episodes, invocations."""

import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Self
from uuid import UUID, uuid5

from gateway.errors import KeyUnavailable

KEY = "RATCHET_SUBJECT_KEY"
KEY_BYTES = 32
ANSWER_PREFIX = "chatcmpl-"

_EPISODES = UUID("6f2f1a52-5f3a-5c0f-9a43-1b3f0f7c2b11")
"""Namespace of the episodes that clients name in words."""


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """Turns an end user's name into what the log knows them by. Whoever loses it cannot erase."""

    secret: bytes = field(repr=False)

    @classmethod
    def open(cls, path: Path, environ: Mapping[str, str] = os.environ) -> Self:
        """The key that the environment names, else the one at ``path``, made if it is missing.

        Of several processes that start at once, one makes it. Raises KeyUnavailable.
        """
        named = environ.get(KEY)
        if named is not None:
            return cls(_decoded(named, KEY))
        try:
            if not path.exists():
                _make(path)
            return cls(_decoded(path.read_text(), str(path)))
        except (OSError, UnicodeDecodeError) as error:
            raise KeyUnavailable(f"the subject key {path} cannot be read: {error}") from error

    def of(self, tenant: str, user: str) -> str:
        """HMAC-SHA256 of the name, 32 hexadecimal digits; another tenant's is another subject."""
        return _subject(self.secret, tenant, user)


@lru_cache(4096)  # an end user calls more than once
def _subject(secret: bytes, tenant: str, user: str) -> str:
    return hmac.digest(secret, f"{tenant}\0{user}".encode(), "sha256").hex()[:32]


def episode_of(tenant: str, name: str) -> UUID:
    """The episode that a client means by ``name``.

    A UUID is itself, and so are a W3C trace id (32 hexadecimal digits) and an answer's id: the
    episode that this answer began. Any other name gets a UUID of its own within the tenant.
    """
    try:
        return UUID(name.removeprefix(ANSWER_PREFIX))
    except ValueError:
        return uuid5(_EPISODES, f"{tenant}\0{name}")


def invocation_of(name: str) -> UUID | None:
    """The invocation whose answer or request id this is; None when it is neither.

    Answers carry the invocation's id behind vLLM's prefix, so no look-up is needed.
    """
    try:
        return UUID(name.removeprefix(ANSWER_PREFIX))
    except ValueError:
        return None


def _make(path: Path) -> None:
    """Written whole beside it and linked in, so that nobody ever reads half a key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(descriptor)
        os.link(new, path)
    except FileExistsError:
        return  # another process was quicker; its key is the key
    finally:
        new.unlink()


def _decoded(text: str, where: str) -> bytes:
    try:
        secret = bytes.fromhex(text.strip())
    except ValueError:
        secret = b""
    if len(secret) != KEY_BYTES:
        raise KeyUnavailable(
            f"the subject key in {where} must be {KEY_BYTES} bytes as {2 * KEY_BYTES} hexadecimal "
            "digits; `openssl rand -hex 32` makes one, but only the old one finds the old subjects"
        )
    return secret
