"""From what is wanted and what is loaded to what is done."""

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from serving.artifact import publish
from serving.errors import EngineRefused, EngineUnavailable
from serving.reconciler import Plan, Residence, Terms, plan, reconcile
from serving.registry import AdapterVersion, Stage
from tests.fakes.adapters import BASE, lora_weights, write_adapter

NOW = datetime(2026, 9, 1, tzinfo=UTC)
TERMS = Terms(base="base", prompt=(1, 2, 3), capacity=8)


def version(number: int, digest: str | None = None, path: Path = Path("/a")) -> AdapterVersion:
    return AdapterVersion(
        alias="helpdesk",
        version=number,
        digest=digest or f"{number:064x}"[::-1],
        path=path,
        base="base",
        rank=8,
        stage=Stage.GATED,
        created_at=NOW,
        changed_at=NOW,
        lineage={},
    )


class FakeEngine:
    """An engine that answers as the base for adapters it was told are without effect."""

    def __init__(self, *, idle: Sequence[str] = (), refuses: Sequence[str] = ()) -> None:
        self.loaded: dict[str, Path] = {}
        self.idle = set(idle)
        self.refuses = set(refuses)
        self.asked: list[str] = []
        self.dies_when_asked: str | None = None

    async def resident(self) -> frozenset[str]:
        return frozenset(self.loaded)

    async def load(self, name: str, path: Path) -> None:
        if name in self.refuses:
            raise EngineRefused(400, "no such module")
        self.loaded[name] = path

    async def unload(self, name: str) -> None:
        del self.loaded[name]

    async def prompt_logprobs(self, model: str, token_ids: Sequence[int]) -> tuple[float, ...]:
        self.asked.append(model)
        if model == self.dies_when_asked:
            raise EngineUnavailable("gone")
        changed = model != "base" and model not in self.idle
        return tuple(-1.5 if changed else -1.0 for _ in token_ids[1:])


@pytest.fixture
def stored(tmp_path: Path) -> AdapterVersion:
    """A version whose files are really there."""
    source = write_adapter(tmp_path / "trained", lora_weights(1))
    artifact = publish(source, tmp_path / "store", base_config=BASE, max_rank=16)
    return version(1, artifact.digest, artifact.path)


def test_nothing_is_done_when_everything_wanted_is_proven() -> None:
    one = version(1)
    name = one.served_name

    moves = plan([one], {name}, Residence(proven=frozenset({name})), capacity=8)

    assert moves == Plan(unload=(), load=(), prove=())


def test_the_missing_are_loaded_and_the_unwanted_unloaded() -> None:
    one, two, old = version(1), version(2), version(3)
    residence = Residence(proven=frozenset({one.served_name, old.served_name}))

    moves = plan([two, one], {one.served_name, old.served_name}, residence, capacity=8)

    assert moves == Plan(unload=(old.served_name,), load=(two,), prove=(two,))


def test_what_is_loaded_but_unproven_is_proven_without_loading_it_again() -> None:
    one = version(1)

    moves = plan([one], {one.served_name}, Residence(), capacity=8)

    assert moves == Plan(unload=(), load=(), prove=(one,))


def test_what_failed_is_not_tried_again() -> None:
    one = version(1)

    moves = plan([one], set(), Residence(failed={one.served_name: "no effect"}), capacity=8)

    assert moves == Plan(unload=(), load=(), prove=())


def test_a_full_engine_keeps_the_most_important() -> None:
    live, spare = version(1), version(2)

    moves = plan([live, spare], {spare.served_name}, Residence(), capacity=1)

    assert moves.unload == (spare.served_name,)
    assert moves.load == (live,)
    assert moves.left_out == (spare,)


async def test_a_sound_adapter_is_loaded_probed_and_proven(stored: AdapterVersion) -> None:
    engine = FakeEngine()

    residence = await reconcile(engine, [stored], Residence(), TERMS)

    assert residence == Residence(proven=frozenset({stored.served_name}))
    assert engine.loaded == {stored.served_name: stored.path}
    assert stored.served_name in engine.asked


async def test_an_adapter_without_effect_is_unloaded_and_remembered(
    stored: AdapterVersion,
) -> None:
    engine = FakeEngine(idle=[stored.served_name])

    residence = await reconcile(engine, [stored], Residence(), TERMS)
    again = await reconcile(engine, [stored], residence, TERMS)

    assert "answers as the base does" in residence.failed[stored.served_name]
    assert engine.loaded == {}
    assert again == residence
    assert engine.asked.count(stored.served_name) == 1


async def test_an_adapter_that_vllm_refuses_does_not_stop_the_others(
    stored: AdapterVersion, tmp_path: Path
) -> None:
    source = write_adapter(tmp_path / "other", lora_weights(2))
    artifact = publish(source, tmp_path / "store", base_config=BASE, max_rank=16)
    other = version(2, artifact.digest, artifact.path)
    engine = FakeEngine(refuses=[stored.served_name])

    residence = await reconcile(engine, [stored, other], Residence(), TERMS)

    assert set(residence.failed) == {stored.served_name}
    assert residence.proven == {other.served_name}


async def test_changed_files_are_never_loaded(stored: AdapterVersion) -> None:
    shutil.rmtree(stored.path)
    engine = FakeEngine()

    residence = await reconcile(engine, [stored], Residence(), TERMS)

    assert engine.loaded == {}
    assert set(residence.failed) == {stored.served_name}


async def test_an_engine_that_dies_during_the_probe_proves_nothing(
    stored: AdapterVersion,
) -> None:
    engine = FakeEngine()
    engine.dies_when_asked = stored.served_name

    with pytest.raises(EngineUnavailable):
        await reconcile(engine, [stored], Residence(), TERMS)
    engine.dies_when_asked = None
    residence = await reconcile(engine, [stored], Residence(), TERMS)

    assert residence.proven == {stored.served_name}


async def test_what_a_restarted_engine_forgot_is_loaded_again(stored: AdapterVersion) -> None:
    engine = FakeEngine()
    residence = await reconcile(engine, [stored], Residence(), TERMS)
    engine.loaded.clear()

    residence = await reconcile(engine, [stored], residence, TERMS)

    assert engine.loaded == {stored.served_name: stored.path}
    assert residence.proven == {stored.served_name}
