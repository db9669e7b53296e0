from concurrent.futures import ThreadPoolExecutor, wait

from automl_pt import ExecutorFactory, hookimpl
from automl_pt.study.executor.inline import InlineEngine


class Thread(InlineEngine):
    """Runs each epoch on a thread of its own, so that the search stays responsive while an epoch runs."""

    def __init__(self, job):
        super().__init__(job.trial_here, job.should_stop, job.config.device)
        self.pool, self.epoch = ThreadPoolExecutor(1), None

    def wait(self, timeout):
        """Return the messages about the epoch; none where it still runs after `timeout` seconds."""
        self.epoch = self.epoch or self.pool.submit(super().wait, 0)
        if not wait([self.epoch], timeout).done:
            return []
        epoch, self.epoch = self.epoch, None
        return epoch.result()

    def halt(self, grace):
        """Let the epoch end, and leave the trial."""
        messages = self.wait(grace) if self.epoch else []
        return messages + super().halt(grace)

    def close(self, grace=0.0):
        """End the thread."""
        messages = self.halt(grace)
        self.pool.shutdown()
        return messages


@hookimpl
def register_executors():
    return [ExecutorFactory("acme/thread", Thread, description="one trial, on a thread")]
