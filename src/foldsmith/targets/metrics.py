"""The metrics by name.

Each is one :class:`~foldsmith.targets.metric.Metric` in :data:`METRICS`; a project's own one stands
in the ``TYPES`` of its Python.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from inspect import Parameter, Signature
from typing import Any, Protocol, cast

import numpy as np

from foldsmith.errors import ConfigError
from foldsmith.targets import partial_areas as areas
from foldsmith.targets import scores_of_classes as of_classes
from foldsmith.targets import scores_of_values as of_values
from foldsmith.targets.class_column_metrics import EXACT_MATCH
from foldsmith.targets.column_metrics import GLOBAL_R2
from foldsmith.targets.label_metrics import METRICS_OF_LABELS
from foldsmith.targets.metric import (
    ACCURACY,
    CLASSES,
    PROBABILITIES,
    RMSE,
    UP_TO_1,
    VALUES,
    Metric,
    Unjudged,
    default_metric,
)
from foldsmith.targets.metric_text import split_metric
from foldsmith.utils.suggest import did_you_mean

# A project's own Python takes a metric's class from here, and the rest of the package its default.
__all__ = [
    "ACCURACY",
    "METRICS",
    "METRICS_OF_CLASS_COLUMNS",
    "METRICS_OF_LABELS",
    "METRICS_OF_NUMBERS",
    "RMSE",
    "TYPES",
    "JudgedProject",
    "Metric",
    "Unjudged",
    "component",
    "default_metric",
    "metric_named",
    "names_of",
    "project_metric",
]

_of_decisions = partial(Metric, greater_is_better=True, needs=CLASSES, limits=UP_TO_1)
_averaged = partial(
    _of_decisions, options={"average": "macro"}, problem_of=of_classes.average_problem
)
_of_probabilities = partial(Metric, greater_is_better=True, needs=PROBABILITIES, limits=UP_TO_1)

MAE = Metric("MAE", of_values.mae, greater_is_better=False, row_function=of_values.absolute)
QWK = _of_decisions(*("QWK", of_classes.quadratic_kappa), uses_order=True, limits=(-1.0, 1.0))
LOG_LOSS = Metric(
    *("LogLoss", of_classes.log_loss),
    greater_is_better=False,
    needs=PROBABILITIES,
    row_function=of_classes.surprise,
)
AUC = _of_probabilities("AUC", of_classes.macro_auc)

_MORE = (
    Metric(
        *("R2", of_values.r2), greater_is_better=True, limits=(-math.inf, 1.0), least_squares=True
    ),
    Metric(
        *("RMSLE", of_values.rmsle),
        greater_is_better=False,
        row_function=of_values.squared_log,
        from_mean=np.sqrt,
        unjudged=Unjudged("below 0", lambda targets: targets < 0),
    ),
    Metric(
        *("MAPE", of_values.mape),
        greater_is_better=False,
        row_function=of_values.absolute_fraction,
        unjudged=Unjudged("0", lambda targets: targets == 0),
    ),
    Metric(
        *("SMAPE", of_values.smape),
        greater_is_better=False,
        row_function=of_values.symmetric_fraction,
        limits=(0.0, 2.0),
    ),
    Metric(*("NRMSE", of_values.normalised_rmse), greater_is_better=False, least_squares=True),
    Metric("MedAE", of_values.median_absolute, greater_is_better=False),
    Metric("Pearson", of_values.pearson, greater_is_better=True, limits=(-1.0, 1.0)),
    Metric("Spearman", of_values.spearman, greater_is_better=True, limits=(-1.0, 1.0)),
    Metric(
        *("Pinball", of_values.pinball),
        greater_is_better=False,
        row_function=of_values.pinball_rows,
        options={"quantile": 0.5},
        problem_of=of_values.quantile_problem,
    ),
    _of_decisions("BalancedAccuracy", of_classes.balanced_accuracy),
    _averaged("F1", of_classes.f1),
    _averaged(
        *("FBeta", of_classes.f_beta),
        options={"beta": 2.0, "average": "macro"},
        problem_of=of_classes.f_beta_problem,
    ),
    _of_decisions("MCC", of_classes.matthews, limits=(-1.0, 1.0)),
    _averaged("Jaccard", of_classes.jaccard),
    Metric(
        *("WeightedLogLoss", of_classes.weighted_log_loss),
        greater_is_better=False,
        needs=PROBABILITIES,
        options={"weights": "balanced"},
        problem_of=of_classes.weights_problem,
    ),
    Metric(
        *("Brier", of_classes.brier),
        greater_is_better=False,
        needs=PROBABILITIES,
        row_function=of_classes.brier_rows,
        limits=(0.0, 2.0),
        least_squares=True,
    ),
    _of_probabilities("AveragePrecision", of_classes.average_precision),
    _of_probabilities("WeightedAUC", of_classes.weighted_auc),
    _of_probabilities(
        *("PartialAUC", areas.of_classes(areas.partial_auc)),
        options={"max_fpr": 0.1},
        problem_of=areas.max_fpr_problem,
    ),
    _of_probabilities(
        *("AUCAboveTPR", areas.of_classes(areas.auc_above)),
        options={"min_tpr": 0.8},
        problem_of=areas.min_tpr_problem,
    ),
    _of_probabilities(
        *("pF1", areas.of_classes(areas.probabilistic_f)),
        options={"beta": 1.0},
        problem_of=areas.beta_problem,
    ),
    _of_probabilities(
        *("TopKAccuracy", of_classes.top_k),
        row_function=of_classes.top_k_rows,
        options={"k": 2},
        problem_of=of_classes.top_k_problem,
    ),
    _of_probabilities(
        *("MAPatK", of_classes.mean_precision_at_k),
        row_function=of_classes.precision_at_k_rows,
        options={"k": 3},
        problem_of=of_classes.rank_problem,
    ),
)

METRICS = {metric.name: metric for metric in (RMSE, MAE, QWK, ACCURACY, LOG_LOSS, AUC, *_MORE)}

# The metrics of several numbers, before they have the columns of a project.
METRICS_OF_NUMBERS: Mapping[str, Metric] = {
    **{name: metric for name, metric in METRICS.items() if metric.needs == VALUES},
    GLOBAL_R2.name: GLOBAL_R2,
}

# The metrics of several class targets, likewise.
METRICS_OF_CLASS_COLUMNS: Mapping[str, Metric] = {
    **{
        name: metric
        for name, metric in METRICS.items()
        if metric.of_classes and not metric.uses_order
    },
    EXACT_MATCH.name: EXACT_MATCH,
}


def metric_named(
    name: str, class_values: Sequence[float] = (), metrics: Mapping[str, Metric] = METRICS
) -> Metric:
    """Return a metric by its name.

    Args:
        name: The name, maybe with options, as in ``FBeta(beta=2)``.
        class_values: Target value of each class, for a metric of classes; without it the values
            among the targets.
        metrics: The metrics to choose from.

    Raises:
        ConfigError: There is none of that name, or an option cannot be.
    """
    name, options = split_metric(name)
    if name not in metrics:
        raise ConfigError(f"metric: there is no metric {name}{did_you_mean(name, metrics)}")
    return metrics[name].with_options(options).for_classes(class_values)


def names_of(metrics: Iterable[Metric], last: str = "or") -> str:
    """Return the names of metrics for a sentence, as in "RMSE, MAE or QWK"."""
    names = [metric.name for metric in metrics]
    return f" {last} ".join(filter(None, (", ".join(names[:-1]), names[-1])))


class JudgedProject(Protocol):
    """The attributes of a project that a metric depends on.

    The project itself depends on its metric, so it cannot be imported here.
    """

    metric: Metric
    metrics: dict[str, Metric]

    @property
    def class_values(self) -> Sequence[float]:
        """Target value of each class, in order."""

    @property
    def class_names(self) -> Sequence[str]:
        """Names of unordered classes."""


def project_metric(project: JudgedProject) -> Metric:
    """Return the metric that a project is judged by, with the project's classes.

    Args:
        project: The project.
    """
    return project.metric


def component(metric: Metric) -> Callable[..., Metric]:
    """Return a function that makes a metric for an experiment, with the docstring of its function.

    Its arguments are the options; a metric takes the classes, labels or columns of the project.
    """
    made: Any = partial(_of_project, metric)
    made.__doc__ = metric.function.__doc__
    parameters = [
        Parameter(key, Parameter.KEYWORD_ONLY, default=value, annotation=type(value))
        for key, value in metric.options.items()
    ]
    # As customize_type of pytorch-pfn-extras declares it, whose import takes seconds.
    made._custom_default_kwargs = {"project": "/project"}
    kind = Parameter.POSITIONAL_OR_KEYWORD
    parameters.insert(0, Parameter("project", kind, annotation=JudgedProject))
    made.__signature__ = Signature(parameters)
    return cast(Callable[..., Metric], made)


def _of_project(metric: Metric, project: JudgedProject, **options: Any) -> Metric:
    """Return a metric with the classes of a project, or the one of its name for its form.

    Args:
        metric: The metric.
        project: The project.
        **options: Values of its options.
    """
    named = project.metrics.get(metric.name, metric).with_options(options)
    return named.for_classes(project.class_values, unordered=bool(project.class_names))


TYPES: dict[str, Callable[..., Metric]] = {
    "ProjectMetric": project_metric,
    **{
        name: component(metric)
        for name, metric in {
            **METRICS_OF_LABELS,
            **METRICS_OF_NUMBERS,
            **METRICS,
            EXACT_MATCH.name: EXACT_MATCH,
        }.items()
    },
}
