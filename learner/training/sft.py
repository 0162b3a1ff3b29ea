"""Supervised training on demonstrations."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from learner.dataset import snapshot
from learner.errors import TrainingError
from learner.launch.directory import JobDirectory
from learner.launch.job import SftJob
from learner.training import defaults, model
from learner.training.journal import Journal
from learner.training.progress import Enough, Progress, resume_from
from learner.training.rendering import Rendered, render, stop_ids


def run(job: SftJob, directory: JobDirectory, journal: Journal) -> Mapping[str, Any]:
    """Train; leave the adapter in ``directory``; return the metrics of the end."""
    tokenizer = model.tokenizer(job.base)
    policy = model.load(job.base, job.lora, job.init_adapter)
    rendered = demonstrations(job, tokenizer, policy, journal)
    plan = defaults.sft_plan(
        job.hyperparameters, samples=len(rendered), parameters=model.parameters(policy)
    )
    journal.say(f"SFT on {len(rendered)} demonstrations: {plan}")
    losses: list[float] = []

    def report(logs: Mapping[str, Any]) -> None:
        losses.append(logs["loss"])
        journal.metrics(f"step {logs['step']}/{plan.steps}", step_metrics(logs))

    trainer = SFTTrainer(
        model=policy,
        args=_config(job, directory, plan),
        train_dataset=_dataset(rendered),
        processing_class=tokenizer,
        callbacks=[Progress(report), Enough(plan.until_loss, journal.say)],
    )
    trainer.remove_callback(PrinterCallback)  # the journal tells the same
    trainer.train(resume_from_checkpoint=resume_from(directory, journal))
    model.save(policy, directory.adapter)
    model.write_probe(policy, rendered[0].ids[: model.PROBED], directory.adapter / "probe.json")
    return {
        "steps": plan.steps,
        "samples": len(rendered),
        **({"train_loss": losses[-1]} if losses else {}),
    }


def step_metrics(logs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The contract's names for what the trainer logged; unknown values are left out."""
    named = {
        "step": logs.get("step"),
        "total_steps": logs.get("total_steps"),
        "train_loss": logs.get("loss"),
        "train_mean_token_accuracy": logs.get("mean_token_accuracy"),
        "actor_grad_norm": logs.get("grad_norm"),
        "learning_rate": logs.get("learning_rate"),
    }
    return {
        name: value for name, value in named.items() if value is not None and math.isfinite(value)
    }


def demonstrations(
    job: SftJob, tokenizer: Any, policy: Any, journal: Journal
) -> Sequence[Rendered]:
    """The training samples that have a demonstration that fits."""
    stops = stop_ids(tokenizer, policy)
    samples = snapshot.read(job.dataset, "train")
    rendered = [
        render(tokenizer, sample, sample.demonstration, stops)
        for sample in samples
        if sample.demonstration is not None
    ]
    fitting = [one for one in rendered if len(one.ids) <= job.hyperparameters.max_length]
    if len(fitting) < len(samples):
        journal.say(
            f"{len(samples) - len(rendered)} of {len(samples)} samples have no demonstration, "
            f"{len(rendered) - len(fitting)} are longer than max_length"
        )
    if not fitting:
        raise TrainingError(f"no training sample of {job.dataset} has a demonstration that fits")
    return fitting


def _dataset(rendered: Sequence[Rendered]) -> Dataset:
    return Dataset.from_dict(
        {
            "input_ids": [list(one.ids) for one in rendered],
            "labels": [list(one.labels) for one in rendered],
        }
    )


def _config(job: SftJob, directory: JobDirectory, plan: defaults.SftPlan) -> SFTConfig:
    cuda = torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(directory.checkpoints),
        max_steps=plan.steps,
        per_device_train_batch_size=plan.batch_size,
        learning_rate=plan.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=max(1, plan.steps // 20),
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
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
