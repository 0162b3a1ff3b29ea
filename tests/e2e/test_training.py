"""SFT, then GRPO with a kill -9 in between, against a real vLLM and a real (tiny) base."""

import json
import os
import signal
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from learner.dataset.sample import Sample
from learner.dataset.snapshot import write
from learner.errors import TrainingError
from learner.launch import EngineAddress, Event, GrpoJob, Job, JobDirectory, SftJob
from learner.launch.job import GrpoHyperparameters, SftHyperparameters
from learner.launch.local import run
from serving.engine import Engine
from serving.launch import EngineSpec
from serving.probe import probe, read_reference
from serving.workbench import Workbench

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

BASE = Path(__file__).parents[3] / "shared" / "models" / "snips-base"
ARTISTS = ("Nina Simone", "Bob Dylan", "Adele", "Queen")
LISTS = ("Focus", "Road Trip", "Sunday Brunch")

TOOL = {"type": "function", "function": {"name": "AddToPlaylist", "parameters": {"type": "object"}}}


def samples() -> list[Sample]:
    """Requests of the kind that the base knows, with the tool's name of today."""
    return [
        sample(f"s{number}", artist, playlist)
        for number, (artist, playlist) in enumerate(
            (artist, playlist) for artist in ARTISTS for playlist in LISTS
        )
    ]


def sample(id_: str, artist: str, playlist: str) -> Sample:
    call = {"name": "AddToPlaylist", "arguments": {"artist": artist, "playlist": playlist}}
    function = {"name": call["name"], "arguments": json.dumps(call["arguments"])}
    return Sample(
        id=id_,
        messages=({"role": "user", "content": f"Add {artist} to my {playlist} playlist"},),
        tools=(TOOL,),
        reference_answer=call,
        demonstration={
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": function}],
        },
    )


def free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def kills_after(step: int, directory: JobDirectory) -> Callable[[Event], None]:
    """Kill -9 the trainer once it has told of ``step``; its id is in its lock's owner."""

    def listen(event: Event) -> None:
        if event.data.get("step") == step:
            os.killpg(trainer(directory), signal.SIGKILL)

    return listen


def trainer(directory: JobDirectory) -> int:
    """The process that trains in this directory, found by its command line."""
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        words = command.read_bytes().split(b"\0")
        if b"learner.training" in words and str(directory.path).encode() in words:
            return int(command.parent.name)
    raise AssertionError(f"nobody trains in {directory.path}")


async def faults(engine: Engine, adapter: Path) -> None:
    """ProbeFailed unless the engine's copy of the adapter behaves as the trainer's."""
    await engine.load("trained", adapter)
    try:
        reference = read_reference(adapter / "probe.json")
        assert reference is not None
        await probe(engine, base="base", adapter="trained", reference=reference, prompt=(1, 2))
    finally:
        await engine.unload("trained")


@pytest.mark.skipif(not BASE.is_dir(), reason="needs ../shared/models/snips-base")
async def test_sft_then_grpo_survives_a_kill_and_leaves_the_engine_clean(tmp_path: Path) -> None:
    dataset = write((("train", one) for one in samples()), tmp_path / "data")
    sft = SftJob(base=BASE, dataset=dataset, hyperparameters=SftHyperparameters(epochs=2))
    spec = EngineSpec(
        name="e2e",
        base=str(BASE),
        served_name="base",
        port=free_port(),
        args={"enable-auto-tool-choice": True, "tool-call-parser": "hermes"},
    )
    events: list[Event] = []

    async with Workbench(spec, tmp_path / "run") as engine:
        start = await run(sft, tmp_path / "sft", on_event=events.append)
        grpo: Job = GrpoJob(
            base=BASE,
            dataset=dataset,
            init_adapter=start,
            engine=EngineAddress(url=spec.url, base_model="base"),
            reward={"type": "tool_call"},
            hyperparameters=GrpoHyperparameters(steps=5, prompts_per_step=4, checkpoint_every=2),
        )
        directory = JobDirectory(tmp_path / "grpo")
        with pytest.raises(TrainingError, match="ended with -9"):
            await run(grpo, directory.path, on_event=kills_after(3, directory))
        adapter = await run(grpo, directory.path, on_event=events.append)
        await faults(engine, adapter)
        left = await engine.resident()

    steps = [event.data for event in events if "train_mean_reward" in event.data]
    assert any(event.message == "resuming from checkpoint-2" for event in events)
    assert [step["step"] for step in steps] == [3, 4, 5]
    assert all(0 <= step["train_mean_reward"] <= 1 for step in steps)
    assert {file.name for file in adapter.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "probe.json",
    }
    assert left == frozenset()
    assert not list(directory.rollouts.iterdir())
