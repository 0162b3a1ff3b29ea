"""Reinforcement: GRPO on completions that the workbench engine samples."""

import asyncio
import math
import shutil
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from learner import rewards
from learner.dataset import snapshot
from learner.errors import TrainingError
from learner.launch.directory import JobDirectory
from learner.launch.job import GrpoJob
from learner.training import defaults, model
from learner.training.actor import Actor
from learner.training.curriculum import Curriculum
from learner.training.journal import Journal
from learner.training.progress import Progress, resume_from
from learner.training.rendering import stop_ids
from learner.training.rollouts import Names, Sampling, forget, gradable


class LeanGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPO that spends no time on completions that teach nothing.

    A completion as good as its group has no advantage and adds nothing to the gradient,
    so its row is dropped before the forward pass; the loss is still divided by the tokens
    of all rows. Only where the whole batch is one piece: micro-batches need equal sizes.
    """

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self.args.steps_per_generation > 1:
            return batch
        keep_B = batch["advantages"].abs() > 1e-6
        keep_B[0] = True  # the trainer needs a row
        rows = {
            name: value[keep_B] if isinstance(value, torch.Tensor) and value.dim() else value
            for name, value in batch.items()
        }
        return _trimmed(rows)


def run(
    job: GrpoJob,
    directory: JobDirectory,
    journal: Journal,
    *,
    names: Names,
    warming: threading.Thread | None = None,
) -> Mapping[str, Any]:
    """Train; leave the adapter in ``directory``; return the metrics of the end.

    Waits for ``warming`` before it first samples.
    """
    tokenizer = model.tokenizer(job.base)
    policy = model.load(job.base, job.lora, job.init_adapter)
    with asyncio.Runner() as runner:
        grader = rewards.from_config(job.reward)
        samples = runner.run(gradable(grader, snapshot.read(job.dataset, "train")))
        if not samples:
            raise TrainingError(f"the reward can grade no training sample of {job.dataset}")
        plan = defaults.grpo_plan(
            job.hyperparameters, samples=len(samples), parameters=model.parameters(policy)
        )
        journal.say(f"GRPO on {len(samples)} samples: {plan}")
        shutil.rmtree(directory.rollouts, ignore_errors=True)
        directory.rollouts.mkdir()
        actor = Actor(
            runner=runner,
            engine_url=job.engine.url,
            policy=policy,
            samples={sample.id: sample for sample in samples},
            sampling=_sampling(job, plan, stop_ids(tokenizer, policy)),
            grader=grader,
            curriculum=Curriculum((sample.id for sample in samples), job.seed),
            directory=directory.rollouts,
            names=names,
        )
        if warming is not None:
            warming.join()
        runner.run(forget(job.engine.url, names))
        metrics = _train(_config(job, directory, plan), directory, journal, tokenizer, actor)
    model.save(policy, directory.adapter)
    if actor.last:  # nothing, when all steps were done before the job was resumed
        tokens = actor.last[0].ids[: model.PROBED]
        model.write_probe(policy, tokens, directory.adapter / "probe.json")
    return {"steps": plan.steps, "samples": len(samples), **metrics}


def _train(
    config: GRPOConfig, directory: JobDirectory, journal: Journal, tokenizer: Any, actor: Actor
) -> Mapping[str, Any]:
    history: list[Mapping[str, Any]] = []

    def report(logs: Mapping[str, Any]) -> None:
        history.append(step_metrics(logs, actor, progress.step_seconds))
        journal.metrics(f"step {logs['step']}/{config.max_steps}", history[-1])

    progress = Progress(report)
    trainer = LeanGRPOTrainer(
        model=actor.policy,
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_dict({"prompt": list(actor.samples)}),
        processing_class=tokenizer,
        callbacks=[progress],
        rollout_func=actor,
    )
    trainer.remove_callback(PrinterCallback)  # the journal tells the same
    trainer.train(resume_from_checkpoint=resume_from(directory, journal))
    return {"train_mean_reward": history[-1]["train_mean_reward"]} if history else {}


def reward(completions: Sequence[Any], reward: Sequence[float | None], **_: Any) -> list[Any]:  # noqa: ARG001
    """What the grader said while sampling. None is no grade: TRL learns nothing from it."""
    return list(reward)


def step_metrics(logs: Mapping[str, Any], actor: Actor, seconds: float) -> Mapping[str, Any]:
    """The contract's names for what is known of a step; unknown values are left out."""
    named = {
        "step": logs["step"],
        "total_steps": logs["total_steps"],
        "actor_pg_loss": logs.get("loss"),
        "actor_entropy": logs.get("entropy"),
        "actor_grad_norm": logs.get("grad_norm"),
        "frac_reward_zero_std": logs.get("frac_reward_zero_std"),
        "learning_rate": logs.get("learning_rate"),
        **actor.metrics(),
    }
    known = {name: value for name, value in named.items() if _known(value)}
    step = {
        "sampling": actor.seconds,
        "training": max(0.0, seconds - actor.seconds),
        "full_iteration": seconds,
    }
    return {**known, "timing": {"step": step}}


def _known(value: Any) -> bool:
    return value is not None and (not isinstance(value, float) or math.isfinite(value))


def _trimmed(batch: dict[str, Any]) -> dict[str, Any]:
    """``batch`` without the columns that only the dropped rows filled."""
    first = int(batch["prompt_mask"].any(dim=0).int().argmax())
    length = max(1, int(batch["completion_mask"].sum(dim=1).max()))
    for name in ("prompt_ids", "prompt_mask"):
        batch[name] = batch[name][:, first:]
    for name in ("completion_ids", "completion_mask", "sampling_per_token_logps"):
        if name in batch:
            batch[name] = batch[name][:, :length]
    return batch


def _sampling(job: GrpoJob, plan: defaults.GrpoPlan, stops: Sequence[int]) -> Sampling:
    return Sampling(
        generations=plan.generations,
        temperature=job.hyperparameters.temperature,
        max_tokens=job.hyperparameters.max_completion_tokens,
        placeholder=stops[0],
    )


def _config(job: GrpoJob, directory: JobDirectory, plan: defaults.GrpoPlan) -> GRPOConfig:
    cuda = torch.cuda.is_available()
    pieces = plan.completions // plan.micro_batch
    return GRPOConfig(
        output_dir=str(directory.checkpoints),
        max_steps=plan.steps,
        num_generations=plan.generations,
        per_device_train_batch_size=plan.micro_batch,
        gradient_accumulation_steps=pieces,
        steps_per_generation=pieces,
        learning_rate=plan.learning_rate,
        lr_scheduler_type=plan.schedule,
        warmup_steps=2,
        max_completion_length=job.hyperparameters.max_completion_tokens,
        temperature=job.hyperparameters.temperature,
        beta=0.0,
        loss_type=plan.loss_type,
        scale_rewards=plan.scale_rewards,
        bf16=True,
        use_cpu=not cuda,
        gradient_checkpointing=cuda,
        save_steps=plan.checkpoint_every,
        save_total_limit=2,
        logging_steps=1,
        disable_tqdm=True,
        report_to="none",
        seed=job.seed,
    )
