"""The metrics of several labels per image, by name."""

from foldsmith.targets import scores_of_labels as of_labels
from foldsmith.targets.metric import LABEL_PROBABILITIES, LABELS, UP_TO_1, Metric

F1_OF_LABELS = Metric(
    *("F1", of_labels.f1),
    greater_is_better=True,
    needs=LABELS,
    limits=UP_TO_1,
    options={"average": "macro"},
    problem_of=of_labels.average_problem,
)

_ALL = (
    F1_OF_LABELS,
    Metric(
        *("FBeta", of_labels.f_beta),
        greater_is_better=True,
        needs=LABELS,
        limits=UP_TO_1,
        options={"beta": 2.0, "average": "macro"},
        problem_of=of_labels.f_beta_problem,
    ),
    Metric(
        *("Jaccard", of_labels.jaccard),
        greater_is_better=True,
        needs=LABELS,
        limits=UP_TO_1,
        options={"average": "macro"},
        problem_of=of_labels.average_problem,
    ),
    Metric(
        *("Accuracy", of_labels.exact_accuracy),
        greater_is_better=True,
        needs=LABELS,
        row_function=of_labels.exact_rows,
        limits=UP_TO_1,
    ),
    Metric(
        *("Hamming", of_labels.hamming),
        greater_is_better=False,
        needs=LABELS,
        row_function=of_labels.hamming_rows,
        limits=UP_TO_1,
    ),
    Metric(
        *("AUC", of_labels.auc),
        greater_is_better=True,
        needs=LABEL_PROBABILITIES,
        limits=UP_TO_1,
        options={"average": "macro"},
        problem_of=of_labels.rank_average_problem,
    ),
    Metric(
        *("AveragePrecision", of_labels.average_precision),
        greater_is_better=True,
        needs=LABEL_PROBABILITIES,
        limits=UP_TO_1,
        options={"average": "macro"},
        problem_of=of_labels.rank_average_problem,
    ),
    Metric(
        *("LogLoss", of_labels.log_loss),
        greater_is_better=False,
        needs=LABEL_PROBABILITIES,
        row_function=of_labels.surprise,
    ),
    Metric(
        *("Brier", of_labels.brier),
        greater_is_better=False,
        needs=LABEL_PROBABILITIES,
        row_function=of_labels.brier_rows,
        limits=UP_TO_1,
        least_squares=True,
    ),
)

METRICS_OF_LABELS = {metric.name: metric for metric in _ALL}
