"""The flywheel: one turn of a policy, from the log to a verdict and a moved alias.

Every phase leaves its product behind and is skipped when the product is there, so that a turn
whose learner was killed is simply run again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gateway.log.store import Store
from learner.bench import Bench
from learner.dataset.build import HELD_OUT, build, record_lineage
from learner.dataset.snapshot import read
from learner.errors import IllegalMove, LearnerError
from learner.evaluation.compare import compare
from learner.evaluation.gate import judge
from learner.evaluation.heldout import Exam, report_of, scores, summary, thinned, told
from learner.evaluation.sampler import Report
from learner.jobs import Phase, TurnState
from learner.jobs.work import Work
from learner.launch.local import run as run_job
from learner.policy import Policy, local_base
from learner.rewards import from_config
from learner.swap import conclude
from serving.artifact import Artifact, publish
from serving.engine import Engine
from serving.errors import ServingError
from serving.registry import Registry, served_name

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Places:
    """Where a turn's products go."""

    datasets: Path
    adapters: Path
    jobs: Path
    run: Path


class Cycle:
    """Turns the wheel. One instance serves all policies of a learner."""

    def __init__(
        self, log: Store, registry: Registry, places: Places, *, now: Callable[[], datetime]
    ) -> None:
        self._log = log
        self._registry = registry
        self._places = places
        self._now = now

    async def run(self, work: Work, policy: Policy) -> None:
        """Bring a running turn to its end. Only a cancelled one stays running, to be resumed."""
        try:
            if work.turn.dataset is None:
                await self._select(work, policy)
            if work.turn.verdict is None:
                await self._learn(work, policy)
            await conclude(work, self._registry, now=self._now)
        except IllegalMove:
            raise  # another learner has the turn now: nothing of it is ours to write
        except (LearnerError, ServingError) as error:
            logger.exception("turn %s failed", work.turn.id)
            work.say(f"failed: {error}", level="error")
            work.end(TurnState.FAILED, error=str(error))

    async def _select(self, work: Work, policy: Policy) -> None:
        upto = work.turn.watermark
        built = await asyncio.to_thread(
            build,
            self._log,
            policy.alias,
            tenant=policy.section.tenant,
            where=policy.section.where,
            held_out=policy.section.held_out,
            upto=upto,
            folder=self._places.datasets,
        )
        await asyncio.to_thread(
            record_lineage, self._log, built, alias=policy.alias, upto=upto, at=self._now()
        )
        work.say(built.told(), data={"path": str(built.path), "train": built.train})
        work.dataset(str(built.path))

    async def _learn(self, work: Work, policy: Policy) -> None:
        """Train every stage, examine them all on the same prompts, and let the gate judge."""
        dataset = Path(work.turn.dataset or "")
        # The engine starts while demonstrations are learnt: neither waits for the other.
        async with Bench(policy.workbench, self._places.run) as bench:
            artifacts = await self._train(work, policy, dataset, bench.engine)
            work.enter(Phase.EVALUATE)
            reports = await self._examine(work, policy, await bench.engine(), artifacts)
        gate = policy.section.gate
        last = policy.stages()[-1]
        comparison = compare(
            scores(reports.get("incumbent", reports["base"])),
            scores(reports[last]),
            alpha=gate.alpha,
            seed=int(dataset.stem[:8], 16),
        )
        verdict = judge(comparison, gate)
        lineage = {"turn": work.turn.id, "dataset": dataset.stem}
        candidate = self._registry.add(
            policy.alias, artifacts[last], at=self._now(), lineage=lineage
        )
        report = report_of(verdict, reports)
        work.say(f"verdict: {verdict.decision}: {verdict.reason}", data=report)
        work.verdict(candidate.version, report)

    async def _train(
        self,
        work: Work,
        policy: Policy,
        dataset: Path,
        engine: Callable[[], Awaitable[Engine]],
    ) -> dict[str, Artifact]:
        artifacts: dict[str, Artifact] = {}
        start: Path | None = None
        for stage in policy.stages():
            work.enter(Phase(stage))
            if stage == Phase.RFT:
                await engine()
            start = await run_job(
                policy.job(stage, dataset, start),
                self._places.jobs / work.turn.id / stage,
                on_event=lambda event: work.say(
                    event.message, level=event.level, data=dict(event.data)
                ),
            )
            artifacts[stage] = await asyncio.to_thread(
                publish,
                start,
                self._places.adapters,
                base_config=local_base(policy.base),
                max_rank=policy.workbench.max_lora_rank,
            )
        return artifacts

    async def _examine(
        self, work: Work, policy: Policy, engine: Engine, artifacts: Mapping[str, Artifact]
    ) -> dict[str, Report]:
        """Grades of the base, the incumbent if an adapter, and every stage."""
        section = policy.section
        samples = read(Path(work.turn.dataset or ""), HELD_OUT)
        exam = Exam(
            thinned(samples, section.gate.max_samples),
            from_config(section.reward),
            section.max_tokens,
        )
        adapters = {name: (one.digest, one.path) for name, one in artifacts.items()}
        if live := self._registry.live(policy.alias):
            adapters = {"incumbent": (live.digest, live.path), **adapters}
        models = {"base": policy.workbench.served_name}
        resident = await engine.resident()
        for name, (digest, path) in adapters.items():
            models[name] = served_name(policy.alias, digest)
            if models[name] not in resident:
                await engine.load(models[name], path)
        reports: dict[str, Report] = {}
        for name, model in models.items():
            reports[name] = await exam.sit(engine, model)
            work.say(told(name, reports[name]), data={name: summary(reports[name])})
        return reports
