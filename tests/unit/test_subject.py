from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest

from gateway.errors import KeyUnavailable
from gateway.log.subject import KEY, SubjectKey, episode_of, invocation_of

SECRET = "0f" * 32


def test_a_missing_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "data" / "subject.key"

    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: SubjectKey.open(path, {}), range(8)))

    assert len(set(keys)) == 1
    assert SubjectKey.open(path, {}) == keys[0]
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_the_key_of_the_environment_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "subject.key"

    key = SubjectKey.open(path, {KEY: SECRET})

    assert key.secret == bytes.fromhex(SECRET)
    assert not path.exists()


def test_a_key_is_not_shown_with_its_object() -> None:
    assert SECRET not in repr(SubjectKey(bytes.fromhex(SECRET)))


@pytest.mark.parametrize("content", [b"", b"short", b"zz" * 32, b"0f" * 31, b"\xff\xfe"])
def test_what_is_no_key_is_refused_and_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "subject.key"
    path.write_bytes(content)

    with pytest.raises(KeyUnavailable, match=r"subject\.key"):
        SubjectKey.open(path, {})


def test_a_folder_that_cannot_be_written_is_refused_and_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")

    with pytest.raises(KeyUnavailable, match="data"):
        SubjectKey.open(tmp_path / "data" / "subject.key", {})


def test_a_user_is_one_subject_in_each_tenant() -> None:
    key = SubjectKey(bytes.fromhex(SECRET))

    subjects = {key.of("acme", "ann"), key.of("acme", "bob"), key.of("umbrella", "ann")}

    assert len(subjects) == 3
    assert key.of("acme", "ann") in subjects
    assert all(len(subject) == 32 for subject in subjects)
    assert SubjectKey(bytes(32)).of("acme", "ann") not in subjects


def test_a_uuid_and_a_trace_id_are_themselves_as_episodes() -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"

    assert episode_of("acme", trace) == UUID(trace)
    assert episode_of("acme", str(UUID(trace))) == UUID(trace)
    assert episode_of("acme", f"chatcmpl-{trace}") == UUID(trace)


def test_another_name_is_one_episode_in_each_tenant() -> None:
    assert episode_of("acme", "booking 7") == episode_of("acme", "booking 7")
    assert episode_of("acme", "booking 7") != episode_of("umbrella", "booking 7")
    assert episode_of("acme", "booking 7") != episode_of("acme", "booking 8")


def test_an_answer_id_names_its_invocation() -> None:
    digits = "0199f0c47a4b7c3d8e9fa0b1c2d3e4f5"

    assert invocation_of(f"chatcmpl-{digits}") == UUID(digits)
    assert invocation_of(str(UUID(digits))) == UUID(digits)
    assert invocation_of("gpt-4") is None
