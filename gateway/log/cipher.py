"""Encryption at rest, from one key: the spool's lines, the log's file, dataset snapshots.

AES-256-GCM throughout (NIST SP 800-38D). The key comes from the environment, as itself or as a
command that prints it, so that a key service fits; each use gets a key of its own by HKDF
(RFC 5869), so that none of them opens another.
"""

import base64
import binascii
import os
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.errors import CipherError, KeyUnavailable

KEY = "RATCHET_ENCRYPTION_KEY"
KEY_COMMAND = "RATCHET_ENCRYPTION_KEY_COMMAND"
KEY_BYTES = 32
COMMAND_TIMEOUT_S = 30

_SEALED = b"~"
"""First byte of a sealed line: JSON never begins so."""
_NONCE_BYTES = 12


class Cipher:
    """Seals and opens bytes. A nonce is random: 2^32 messages a key are safe, then rotate."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def seal(self, plain: bytes) -> bytes:
        """Nonce, ciphertext and tag."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, plain, None)

    def open(self, sealed: bytes) -> bytes:
        """What was sealed. Raises CipherError when it was changed, or sealed by another key."""
        try:
            return self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
        except (InvalidTag, ValueError) as error:
            raise CipherError("it was damaged, or sealed with another key") from error

    def seal_line(self, plain: bytes) -> bytes:
        """The same as printable text without a line break."""
        return _SEALED + binascii.b2a_base64(self.seal(plain), newline=False)


def is_sealed(line: bytes) -> bool:
    """Whether the line was made by ``seal_line``."""
    return line.startswith(_SEALED)


def open_line(line: bytes, cipher: Cipher | None) -> bytes:
    """What ``seal_line`` sealed. Raises CipherError."""
    if cipher is None:
        raise CipherError(f"it is encrypted and there is no key; set {KEY}")
    try:
        return cipher.open(binascii.a2b_base64(line[1:], strict_mode=True))
    except binascii.Error as error:
        raise CipherError(f"it is no sealed line: {error}") from error


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys of each use, made from one secret of 32 bytes."""

    spool: Cipher
    datasets: Cipher
    database: str
    """What DuckDB is given as ENCRYPTION_KEY: base64 of 32 bytes."""

    @classmethod
    def of(cls, secret: bytes) -> Self:
        """Derive every key."""
        return cls(
            spool=Cipher(_derived(secret, b"ratchet spool")),
            datasets=Cipher(_derived(secret, b"ratchet datasets")),
            database=base64.b64encode(_derived(secret, b"ratchet database")).decode(),
        )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self | None:
        """The keys that the environment names; None when it names none: nothing is encrypted.

        Raises KeyUnavailable when the key is not 32 bytes, or its command fails.
        """
        text = environ.get(KEY)
        if text is None and environ.get(KEY_COMMAND):
            text = _printed(environ[KEY_COMMAND])
        return None if text is None else cls.of(_decoded(text.strip()))


def _derived(secret: bytes, use: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=use).derive(secret)


def _decoded(text: str) -> bytes:
    """64 hexadecimal digits, or base64 of 32 bytes."""
    try:
        is_hex = len(text) == 2 * KEY_BYTES
        secret = bytes.fromhex(text) if is_hex else base64.b64decode(text, validate=True)
    except ValueError:
        secret = b""
    if len(secret) != KEY_BYTES:
        raise KeyUnavailable(
            f"the encryption key must be {KEY_BYTES} bytes as hex or base64; "
            "`openssl rand -hex 32` makes one"
        )
    return secret


def _printed(command: str) -> str:
    """What the command prints. Errors do not repeat it: it may hold a secret itself."""
    try:
        done = subprocess.run(
            shlex.split(command),
            check=True,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip()
        raise KeyUnavailable(f"{KEY_COMMAND} ended with {error.returncode}: {said}") from None
    except subprocess.TimeoutExpired:
        raise KeyUnavailable(f"{KEY_COMMAND} took over {COMMAND_TIMEOUT_S} s") from None
    except UnicodeDecodeError:
        raise KeyUnavailable(f"{KEY_COMMAND} printed bytes that are no text") from None
    except (OSError, ValueError) as error:
        raise KeyUnavailable(f"{KEY_COMMAND} cannot be run: {error}") from error
    return done.stdout
