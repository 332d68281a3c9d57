"""Which calibrations of blends suit a metric."""

from foldsmith.targets.metric import CLASSES, Metric


def calibration_problem(metric: Metric, how: str) -> str | None:
    """Return why blends of a project with a metric cannot be calibrated; None if they can.

    Args:
        metric: The metric.
        how: ``auto``, ``none``, ``isotonic``, ``thresholds`` or ``priors``, as in
            ``ensemble/calibrate``.
    """
    can_be, needed = {
        "none": (True, ""),
        "auto": (True, ""),
        "isotonic": (not metric.takes_probabilities, "a metric of point predictions"),
        "thresholds": (
            metric.decision == "thresholds",
            "a metric of classes in an order, such as F1, QWK or Accuracy, or of labels",
        ),
        "priors": (
            metric.needs == CLASSES and metric.takes_probabilities,
            "a metric of decisions between classes without an order, such as F1",
        ),
    }[how]
    return None if can_be else f"{how} needs {needed}; the project's is {metric.title}"
