"""Training jobs as files: what is accepted, what ``auto`` means, what events look like."""

import json
from pathlib import Path
from typing import Any

import pytest

from learner.errors import TrainingError
from learner.launch import Event, GrpoJob, JobDirectory, SftJob, read_job
from learner.launch.directory import write_whole
from learner.launch.event import Kind
from learner.launch.job import GrpoHyperparameters, SftHyperparameters
from learner.training.defaults import grpo_plan, learning_rate, sft_plan
from learner.training.journal import Journal

GRPO: dict[str, Any] = {
    "stage": "grpo",
    "base": "base",
    "dataset": "data.parquet",
    "engine": {"url": "http://127.0.0.1:8000", "base_model": "base"},
    "reward": {"type": "tool_call"},
}


def test_a_job_survives_being_written_and_read() -> None:
    job = read_job(json.dumps(GRPO))

    assert isinstance(job, GrpoJob)
    assert read_job(job.model_dump_json()) == job


def test_the_stage_says_which_job_it_is() -> None:
    job = read_job('{"stage": "sft", "base": "b", "dataset": "d"}')

    assert isinstance(job, SftJob)
    assert job.lora.r == 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage": "ppo"}, "'sft', 'grpo'"),
        ({"engine": None}, "grpo.engine"),
        ({"hyperparameters": {"step": 3}}, "grpo.hyperparameters.step"),
        ({"hyperparameters": {"generations": 1}}, "grpo.hyperparameters.generations"),
        ({"lora": {"r": 12}}, "grpo.lora.r"),
    ],
)
def test_a_wrong_job_names_the_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        read_job(json.dumps(GRPO | change))


def test_a_chosen_hyperparameter_is_kept() -> None:
    chosen = SftHyperparameters(epochs=2, batch_size=4, learning_rate=0.5)

    plan = sft_plan(chosen, samples=10, parameters=10**9)

    assert (plan.steps, plan.batch_size, plan.learning_rate) == (6, 4, 0.5)


def test_larger_models_learn_in_smaller_steps() -> None:
    rates = [learning_rate(10**power) for power in range(5, 13)]

    assert rates == sorted(rates, reverse=True)
    assert rates[-1] > 0


def test_few_samples_make_small_steps() -> None:
    plan = grpo_plan(GrpoHyperparameters(), samples=3, parameters=10**6)

    assert plan.prompts_per_step == 3
    assert plan.completions % plan.micro_batch == 0


def test_large_models_train_in_pieces_that_divide_the_step() -> None:
    chosen = GrpoHyperparameters(prompts_per_step=6, generations=6, micro_batch=10)

    plan = grpo_plan(chosen, samples=100, parameters=10**10)

    assert plan.micro_batch == 9


def test_events_are_read_from_where_one_left_off(tmp_path: Path) -> None:
    directory = JobDirectory(tmp_path)
    journal = Journal(directory.events)
    journal.say("started")
    [(first, offset)] = directory.read_events()
    journal.metrics("step 1/2", {"step": 1})
    with directory.events.open("a") as file:
        file.write('{"created_at": 1.0, "half')

    [(second, _)] = directory.read_events(offset)

    assert first.message == "started"
    assert (second.kind, second.data) == (Kind.METRICS, {"step": 1})


def test_an_event_survives_being_written_and_read() -> None:
    event = Event(1.5, "größer", kind=Kind.METRICS, data={"step": 1})

    assert Event.from_json(event.to_json()) == event


def test_a_result_is_there_only_when_the_job_is_done(tmp_path: Path) -> None:
    directory = JobDirectory(tmp_path)
    before = directory.result()

    write_whole(directory.done, '{"steps": 3}')

    assert before is None
    assert directory.result() == {"steps": 3}
