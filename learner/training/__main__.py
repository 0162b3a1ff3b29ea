"""``python -m learner.training JOBDIR``: run the job of ``JOBDIR/job.json`` to its end.

Writes ``DONE`` and exits 0, or writes ``FAILED`` and exits 1. Killed at any time and
started again on the same directory it goes on from its last checkpoint.
"""

import argparse
import json
import logging
import os
import sys
import time
import traceback
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learner.launch.directory import JobDirectory, write_whole
from learner.launch.event import Level
from learner.launch.job import Job, SftJob, read_job
from learner.training.journal import Journal
from learner.training.rollouts import Names, warm_up
from learner.training.watch import exclusive, stop_with_parent


def main() -> int:
    arguments = _arguments()
    directory = JobDirectory(arguments.directory.absolute())
    if arguments.watch_stdin:
        stop_with_parent()
    _set_environment()
    journal = Journal(directory.events)
    began = time.perf_counter()
    try:
        with exclusive(directory.lock):
            if directory.done.exists():
                return 0
            directory.failed.unlink(missing_ok=True)
            result = _run(read_job(directory.job.read_bytes()), directory, journal)
            seconds = time.perf_counter() - began
            _finish(directory, journal, {**result, "seconds": round(seconds, 3)})
    except Exception as error:  # noqa: BLE001 - the job's border: any failure becomes FAILED
        traceback.print_exc()
        reason = _one_line(error)
        journal.say(reason, level=Level.ERROR)
        write_whole(directory.failed, reason + "\n")
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="learner.training", description=__doc__)
    parser.add_argument("directory", type=Path, help="holds job.json; gets the results")
    parser.add_argument(
        "--watch-stdin", action="store_true", help="stop when standard input is closed"
    )
    return parser.parse_args()


def _run(job: Job, directory: JobDirectory, journal: Journal) -> Mapping[str, Any]:
    # torch and TRL take seconds to import: each stage imports its own, the engine meanwhile
    # compiles its kernels for adapters
    if isinstance(job, SftJob):
        from learner.training import sft

        return sft.run(job, directory, journal)
    names = Names.of(directory.path, uuid.uuid4().hex[:8])
    warming = warm_up(job, names)
    from learner.training import grpo

    return grpo.run(job, directory, journal, names=names, warming=warming)


def _finish(directory: JobDirectory, journal: Journal, result: Mapping[str, Any]) -> None:
    journal.say(f"done in {result['seconds']} s")
    write_whole(directory.done, json.dumps(result))


def _set_environment() -> None:
    """Before torch is imported: leave cores to the engine, and the log to what matters.

    Threads that outnumber free cores wait for each other at every operation, so half of
    the cores are the engine's, which samples while nobody trains but also the other way.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", message="TRL currently supports vLLM")
    logging.getLogger("trl.trainer.grpo_trainer").setLevel(logging.ERROR)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


if __name__ == "__main__":
    sys.exit(main())
