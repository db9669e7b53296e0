"""A pruner that ends a trial once its loss is twice the best of the others after as many epochs."""

from automl_pt import Pruner, PruningRule, hookimpl


class Twice(PruningRule):
    """Compares trials after each epoch; the points and the ranking are those of the base."""

    def verdict(self, number, progress_list, total):
        """End a trial that is far behind; a trial that runs or waits is None in `end`."""
        mine = next(trial_progress for trial_progress in progress_list if trial_progress.number == number)
        best = min(trial_progress.best(mine.epoch) for trial_progress in progress_list)
        return "prune" if mine.best(mine.epoch) > 2 * best else "promote"


@hookimpl
def register_pruners():
    """Register `acme/twice`."""
    return [Pruner("acme/twice", lambda epochs, images: Twice(epochs), description="ends trials far behind")]
