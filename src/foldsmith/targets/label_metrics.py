"""The metrics of several labels per image, by name."""

from functools import partial

from foldsmith.targets import partial_areas as areas
from foldsmith.targets import scores_of_labels as of_labels
from foldsmith.targets.label_means import EQUAL
from foldsmith.targets.metric import LABEL_PROBABILITIES, LABELS, UP_TO_1, Metric

_of_decisions = partial(Metric, needs=LABELS, limits=UP_TO_1)
_averaged = partial(
    _of_decisions,
    greater_is_better=True,
    options={"average": "macro", "weights": EQUAL},
    problem_of=of_labels.average_problem,
)
_of_ranks = partial(
    Metric,
    greater_is_better=True,
    needs=LABEL_PROBABILITIES,
    limits=UP_TO_1,
    options={"average": "macro", "weights": EQUAL},
    problem_of=of_labels.rank_average_problem,
)

F1_OF_LABELS = _averaged("F1", of_labels.f1)

_ALL = (
    F1_OF_LABELS,
    _averaged(
        *("FBeta", of_labels.f_beta),
        options={"beta": 2.0, "average": "macro", "weights": EQUAL},
        problem_of=of_labels.f_beta_problem,
    ),
    _averaged("Jaccard", of_labels.jaccard),
    _of_decisions(
        *("Accuracy", of_labels.exact_accuracy),
        greater_is_better=True,
        row_function=of_labels.exact_rows,
    ),
    _of_decisions(
        *("Hamming", of_labels.hamming),
        greater_is_better=False,
        row_function=of_labels.hamming_rows,
        options={"weights": EQUAL},
    ),
    _of_ranks("AUC", of_labels.auc),
    _of_ranks("AveragePrecision", of_labels.average_precision),
    _of_ranks(
        *("PartialAUC", areas.partial_auc),
        options={"max_fpr": 0.1, "weights": EQUAL},
        problem_of=areas.max_fpr_problem,
    ),
    _of_ranks(
        *("AUCAboveTPR", areas.auc_above),
        options={"min_tpr": 0.8, "weights": EQUAL},
        problem_of=areas.min_tpr_problem,
    ),
    _of_ranks(
        *("pF1", areas.probabilistic_f),
        options={"beta": 1.0, "weights": EQUAL},
        problem_of=areas.beta_problem,
    ),
    Metric(
        *("LogLoss", of_labels.log_loss),
        greater_is_better=False,
        needs=LABEL_PROBABILITIES,
        row_function=of_labels.surprise,
        options={"weights": EQUAL},
    ),
    Metric(
        *("Brier", of_labels.brier),
        greater_is_better=False,
        needs=LABEL_PROBABILITIES,
        row_function=of_labels.brier_rows,
        options={"weights": EQUAL},
        limits=UP_TO_1,
        least_squares=True,
    ),
)

METRICS_OF_LABELS = {metric.name: metric for metric in _ALL}
