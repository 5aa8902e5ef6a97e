"""Workers: write `work`, start it, and jobs get done. Talks to the server over HTTP alone."""

from presque.worker.errors import Dead, Interrupted, JobCancelled, JobKilled, JobStopped, JobTimeout, Retry
from presque.worker.failures import to_file, to_queue
from presque.worker.job import Job
from presque.worker.settings import WrongSetting
from presque.worker.worker import Worker

__all__ = [
    "Dead",
    "Interrupted",
    "Job",
    "JobCancelled",
    "JobKilled",
    "JobStopped",
    "JobTimeout",
    "Retry",
    "Worker",
    "WrongSetting",
    "to_file",
    "to_queue",
]
