"""The training job: ``python -m learner.training JOBDIR``. The only package with torch."""
