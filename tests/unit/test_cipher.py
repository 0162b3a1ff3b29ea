import base64
import sys

import pytest

from gateway.errors import CipherError, KeyUnavailable
from gateway.log.cipher import Cipher, Keyring, is_sealed, open_line

SECRET = bytes(range(32))
OTHER = bytes(32)


def test_what_is_sealed_opens_with_its_key_alone() -> None:
    sealed = Cipher(SECRET).seal(b"plain")

    assert b"plain" not in sealed
    assert Cipher(SECRET).open(sealed) == b"plain"
    with pytest.raises(CipherError, match="another key"):
        Cipher(OTHER).open(sealed)


def test_the_same_is_never_sealed_alike() -> None:
    cipher = Cipher(SECRET)

    assert cipher.seal(b"plain") != cipher.seal(b"plain")


@pytest.mark.parametrize("at", [0, 12, -1])
def test_a_changed_byte_is_noticed_wherever_it_is(at: int) -> None:
    sealed = bytearray(Cipher(SECRET).seal(b"plain"))
    sealed[at] ^= 1

    with pytest.raises(CipherError):
        Cipher(SECRET).open(bytes(sealed))


@pytest.mark.parametrize("size", [0, 5, 12, 20])
def test_what_is_cut_short_does_not_open(size: int) -> None:
    sealed = Cipher(SECRET).seal(b"plain")

    with pytest.raises(CipherError):
        Cipher(SECRET).open(sealed[:size])


def test_a_sealed_line_is_printable_and_known_from_json() -> None:
    cipher = Cipher(SECRET)
    plain = bytes(range(256)) * 20

    line = cipher.seal_line(plain)

    assert line.decode("ascii").isprintable()
    assert is_sealed(line)
    assert not is_sealed(b'{"k":"invocation"}')
    assert open_line(line, cipher) == plain


@pytest.mark.parametrize(
    "line", [b"~", b"~AAAA", b"~not base64!", b"~\xff\xfe", b"~AAA", b"~ " * 9]
)
def test_a_line_of_rubbish_does_not_open(line: bytes) -> None:
    with pytest.raises(CipherError):
        open_line(line, Cipher(SECRET))


def test_a_line_cut_or_changed_anywhere_does_not_open() -> None:
    cipher = Cipher(SECRET)
    line = cipher.seal_line(b"plain")

    for at in range(1, len(line)):
        changed = bytearray(line)
        changed[at] = ord("A") if changed[at] != ord("A") else ord("B")
        for damaged in (bytes(changed), line[:at]):
            with pytest.raises(CipherError):
                open_line(damaged, cipher)


def test_no_use_has_the_key_of_another() -> None:
    keys = Keyring.of(SECRET)

    sealed = keys.spool.seal(b"plain")

    with pytest.raises(CipherError):
        keys.datasets.open(sealed)
    with pytest.raises(CipherError):
        Cipher(base64.b64decode(keys.database)).open(sealed)
    with pytest.raises(CipherError):
        Cipher(SECRET).open(sealed)


def test_the_same_secret_makes_the_same_keys() -> None:
    keys, again, others = Keyring.of(SECRET), Keyring.of(SECRET), Keyring.of(OTHER)

    assert again.spool.open(keys.spool.seal(b"plain")) == b"plain"
    assert keys.database == again.database != others.database
    assert len(base64.b64decode(keys.database)) == 32


def test_nothing_is_encrypted_when_the_environment_names_no_key() -> None:
    assert Keyring.from_environment({}) is None


@pytest.mark.parametrize(
    "text",
    [SECRET.hex(), SECRET.hex().upper(), base64.b64encode(SECRET).decode(), SECRET.hex() + "\n"],
)
def test_the_key_is_hex_or_base64(text: str) -> None:
    keys = Keyring.from_environment({"RATCHET_ENCRYPTION_KEY": text})

    assert keys is not None
    assert keys.database == Keyring.of(SECRET).database


@pytest.mark.parametrize(
    "text", ["", "secret", "0" * 63, "z" * 64, base64.b64encode(bytes(31)).decode(), "ä" * 44]
)
def test_what_is_no_key_is_refused_and_the_cure_is_named(text: str) -> None:
    with pytest.raises(KeyUnavailable, match="openssl rand -hex 32"):
        Keyring.from_environment({"RATCHET_ENCRYPTION_KEY": text})


def test_a_key_with_a_stray_character_is_refused() -> None:
    text = base64.b64encode(SECRET).decode()

    with pytest.raises(KeyUnavailable):
        Keyring.from_environment({"RATCHET_ENCRYPTION_KEY": text[:10] + "!" + text[10:]})


def test_the_key_may_come_from_a_command() -> None:
    command = f"{sys.executable} -c \"print('{SECRET.hex()}')\""

    keys = Keyring.from_environment({"RATCHET_ENCRYPTION_KEY_COMMAND": command})

    assert keys is not None
    assert keys.database == Keyring.of(SECRET).database


def test_a_failing_command_says_what_it_said_and_is_not_repeated() -> None:
    command = f"{sys.executable} -c \"import sys; sys.exit('-'.join(['no', 'such', 'secret']))\""

    with pytest.raises(KeyUnavailable, match="ended with 1: no-such-secret") as failure:
        Keyring.from_environment({"RATCHET_ENCRYPTION_KEY_COMMAND": command})

    assert "import sys" not in str(failure.value)


def test_a_command_that_prints_no_text_is_refused() -> None:
    command = f'{sys.executable} -c "import os; os.write(1, bytes([255, 254]))"'

    with pytest.raises(KeyUnavailable, match="no text"):
        Keyring.from_environment({"RATCHET_ENCRYPTION_KEY_COMMAND": command})


def test_a_command_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.log.cipher.COMMAND_TIMEOUT_S", 0.05)
    command = f'{sys.executable} -c "import signal; signal.pause()"'

    with pytest.raises(KeyUnavailable, match="took over"):
        Keyring.from_environment({"RATCHET_ENCRYPTION_KEY_COMMAND": command})


@pytest.mark.parametrize("command", ["/no/such/command", "'unbalanced"])
def test_a_command_that_cannot_be_run_is_said(command: str) -> None:
    with pytest.raises(KeyUnavailable, match="RATCHET_ENCRYPTION_KEY_COMMAND"):
        Keyring.from_environment({"RATCHET_ENCRYPTION_KEY_COMMAND": command})
