from automl_pt import Metric, hookimpl


def kappa(found):
    """Cohen's kappa: the agreement beyond chance, from the counts by class alone."""
    images = len(found.labels)
    observed = found.correct.sum().item() / images
    chance = (found.support * found.predicted_counts).sum().item() / images**2
    return (observed - chance) / (1 - chance) if chance < 1 else None


@hookimpl
def register_metrics():
    return [Metric("kappa", kappa, label="Cohen's kappa", format="number")]
