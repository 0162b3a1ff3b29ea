"""Training jobs: what one is, where it lives on disk, and how it is started.

``local.run(job, directory, on_event=...)`` runs one on this machine. Nothing here imports torch.
"""

from learner.launch.directory import JobDirectory
from learner.launch.event import Event
from learner.launch.job import AUTO, EngineAddress, GrpoJob, Job, Lora, SftJob, read_job

__all__ = [
    "AUTO",
    "EngineAddress",
    "Event",
    "GrpoJob",
    "Job",
    "JobDirectory",
    "Lora",
    "SftJob",
    "read_job",
]
