"""The sections of a report that compares two runs."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.config.settings import FINE_TUNINGS
from foldsmith.project.tables import image_paths, read_folds
from foldsmith.report import figures
from foldsmith.report.configuration import differences
from foldsmith.report.costs import costs_beside
from foldsmith.report.finished_run import FinishedRun
from foldsmith.report.parts import Gallery, Part, Section, Text, picture, table, thumbnail
from foldsmith.report.run_comparison import RunComparison
from foldsmith.steps.base import Step, StepKind
from foldsmith.training.files import entries_of
from foldsmith.utils.flatten import flatten
from foldsmith.utils.formatting import brief

Array = npt.NDArray[np.float64]

# Images of a gallery.
_SHOWN = 12
# Labels or targets that are printed; the page has all of them.
_LABEL_LINES = 12
_CURVES = ("train/loss", "val/loss", "val/metric")


def lines_of(comparison: RunComparison) -> list[str]:
    """Return the result as lines: both scores, the difference, the verdict and the notes."""
    difference = f"{comparison.metric.title}: {comparison.difference}"
    return [
        *_score_lines(comparison),
        difference,
        comparison.verdict,
        *_label_lines(comparison),
        *(f"note: {note}" for note in comparison.notes),
    ]


def _label_lines(comparison: RunComparison) -> list[str]:
    """Return a line per label or target; the largest gains and losses if there are many."""
    labels = comparison.by_label
    if labels is None:
        return []
    chosen = labels
    if len(labels) > _LABEL_LINES:
        chosen = pd.concat([labels.head(_LABEL_LINES // 2), labels.tail(_LABEL_LINES // 2)])
    return [
        f"{brief(row['label'])}: A {row['A']:.4f}, B {row['B']:.4f}, gain {row['gain']:+.4f}"
        + (f" ({row['low']:+.4f} to {row['high']:+.4f})" if "low" in row else "")
        for row in chosen.to_dict("records")
    ]


def _score_lines(comparison: RunComparison) -> list[str]:
    metric = comparison.metric.title
    found = []
    named = zip("AB", comparison.names, strict=True)
    for (letter, name), run, honest in zip(
        named, _runs(comparison), comparison.scores, strict=True
    ):
        (low, high), predictions = honest.interval, run.predictions
        in_sample = ""
        if predictions.in_sample is not None and metric == run.project.metric.title:
            in_sample = f"; in sample {predictions.in_sample:.4f}"
        score = f"{metric} {honest.score:.4f} [{low:.4f}, {high:.4f}]"
        found.append(f"{letter} {name}: {score}, {predictions.description}{in_sample}")
    constant = f"{metric} {comparison.constant:.4f}"
    return [*found, f"constant prediction: {constant}"]


def sections_of_comparison(comparison: RunComparison) -> list[Section]:
    """Return the sections of a report of two runs."""
    return [
        _scores(comparison),
        _predictions(comparison),
        _images(comparison),
        _curves(comparison),
        costs_beside({"A": comparison.a.plan, "B": comparison.b.plan}),
        _configuration(comparison),
    ]


def _runs(comparison: RunComparison) -> tuple[FinishedRun, FinishedRun]:
    return comparison.a, comparison.b


def _scores(comparison: RunComparison) -> Section:
    metric = comparison.metric.title
    lines = [*_score_lines(comparison), *(f"Note: {note}." for note in comparison.notes)]
    parts: list[Part] = [Text(line) for line in lines]
    caption = (
        f"Intervals of a bootstrap over {comparison.resampled}; the gain is paired: both on the "
        "same images"
    )
    parts.append(picture(caption, figures.scores_beside(comparison.scores, metric)))
    by_fold = comparison.by_fold
    caption = f"{metric} of each fold"
    if comparison.same_folds:
        caption += f"; B is better in {(by_fold['gain'] > 0).sum()} of {len(by_fold)}"
    else:
        caption += "; a fold holds other images in A than in B"
    parts.append(picture(caption, figures.folds_beside(by_fold, metric)))
    parts.append(table("Scores of the folds; a positive gain is better in B", by_fold))
    if comparison.by_label is not None:
        caption = (
            f"{metric} of each label or target alone, with 95 % of resamples of the gain of B over "
            "A, the largest gain first"
        )
        parts.append(table(caption, comparison.by_label))
    return Section("Scores", "scores", parts)


def _values(comparison: RunComparison) -> tuple[Array, Array]:
    """Return the number of each image by which A and B are compared, and the ideal ones.

    Returns:
        Shapes (2, n) and (n,).
    """
    form = comparison.a.project.form
    of_runs = [
        form.compared(each.points, each.probabilities, each.targets) for each in comparison.shared
    ]
    return np.stack([values for values, _ in of_runs]), of_runs[0][1]


def _predictions(comparison: RunComparison) -> Section:
    points, right = _values(comparison)
    errors, targets = np.abs(points - right), comparison.shared[0].targets
    form = comparison.a.project.form
    what = form.compared_as
    colours = form.colours(targets)
    parts: list[Part] = [
        Text(
            f"Correlation of the {what} {_correlation(points)}, of the errors "
            f"{_correlation(points - right)}: runs that err alike gain little from a blend. "
            f"A is closer to the truth for {(errors[0] < errors[1]).sum()} images, B for "
            f"{(errors[1] < errors[0]).sum()} of {len(targets)}."
        ),
        picture(
            "Each point is an image; on the dotted line both predict the same",
            figures.prediction_against_prediction(*(points, colours, what), form.class_names),
        ),
    ]
    return Section("Predictions", "predictions", parts)


def _correlation(values: Array) -> str:
    if (values.std(axis=1) == 0).any():
        return "not defined (one of them is constant)"
    a, b = values - values.mean(axis=1, keepdims=True)
    return f"{(a @ b) / np.sqrt((a @ a) * (b @ b)):.3f}"


def _images(comparison: RunComparison) -> Section:
    (a, b), right = _values(comparison)
    wins = np.abs(b - right) - np.abs(a - right)
    project, captions = comparison.a.project, _captions(comparison)
    folds = read_folds(project, comparison.a.experiment.globals.meta_file)
    known = pd.Index(folds[project.settings.id_column])
    ids = comparison.shared[0].ids

    def gallery(caption: str, amount: Array) -> Iterator[Gallery]:
        """Yield a gallery of the images with the largest amounts above 0."""
        order = np.argsort(-amount, kind="stable")[:_SHOWN]
        rows = known.get_indexer(pd.Index([ids[k] for k in order]))
        images = [
            (
                ""
                if row < 0
                else thumbnail(image_paths(project, folds.iloc[[row]])[0], project.intensity_range),
                f"{ids[k]}: {captions[k]}",
            )
            for k, row in zip(order, rows, strict=True)
            if amount[k] > 0
        ]
        if images:
            yield Gallery(caption, images)

    parts: list[Part] = [
        *gallery("A and B differ most", np.abs(a - b)),
        *gallery("A wins most: its prediction is so much closer to the truth", wins),
        *gallery("B wins most", -wins),
    ]
    return Section("Images", "images", parts or [Text("A and B predict the same of every image.")])


def _captions(comparison: RunComparison) -> list[str]:
    """Return a caption for each image: its target, and the predictions of A and B."""
    form, targets = comparison.a.project.form, comparison.shared[0].targets
    shown = [form.shown(targets), *(form.said(each.points) for each in comparison.shared)]
    texts = list(zip(*([text or "no label" for text in each] for each in shown), strict=True))
    between = form.between_runs
    if not form.texts:
        return [between.join((f"true {truth}", f"A {a}", f"B {b}")) for truth, a, b in texts]
    return [
        between.join((f"true {truth}", f"A {a} ({p:.2f})", f"B {b} ({q:.2f}; {form.compared_as})"))
        for (truth, a, b), (p, q) in zip(texts, _values(comparison)[0].T, strict=True)
    ]


def _curves(comparison: RunComparison) -> Section:
    logs: dict[str, list[dict[str, float]]] = {}
    dashed = []
    for name, step in _steps(comparison, lambda kind: kind.predicts):
        log = _mean_log(step, comparison.a.project.n_splits)
        if log:
            logs[name] = log
            if name.startswith("B "):
                dashed.append(name)
    section = Section("Learning curves", "curves")
    if not logs:
        section.parts.append(Text("None of their experiments is trained by epochs."))
        return section
    caption = (
        "Mean over the folds of each experiment; those of B are dashed. Losses are comparable "
        "only between experiments of one task."
    )
    section.parts.append(picture(caption, figures.curves(logs, _CURVES, dashed)))
    return section


def _steps(comparison: RunComparison, chosen: Callable[[StepKind], bool]) -> list[tuple[str, Step]]:
    """Return the steps of some kinds of both runs, with names; those of both once."""
    found: dict[tuple[str, str], tuple[str, Step]] = {}
    for letter, run in zip("AB", _runs(comparison), strict=True):
        for step in run.plan.steps:
            if chosen(step.kind):
                # The same step in both has one folder.
                key = (str(step.folder), step.label)
                before = found.get(key)
                name = f"{letter if before is None else 'both'} {step.folder.name}"
                found[key] = (name, step)
    return list(found.values())


def _mean_log(step: Step, n_splits: int) -> list[dict[str, float]]:
    """Return the mean over the folds of an experiment's logged values."""
    logs = [log for k in range(n_splits) if (log := entries_of(step.folder / f"fold{k}"))]
    return [
        {
            key: float(np.mean([entry[key] for entry in entries]))
            for key in ("epoch", *_CURVES)
            if all(key in entry for entry in entries)
        }
        for entries in zip(*logs, strict=False)
    ]


def _configuration(comparison: RunComparison) -> Section:
    section = Section("Configuration", "configuration")
    # Outputs of one task have one set of keys.
    trees: dict[str, dict[str, dict[str, Any]]] = {}
    members = _steps(comparison, lambda kind: kind.predicts)
    others = _steps(comparison, lambda kind: bool(kind.title) and not kind.predicts)
    for name, step in [*members, *others]:
        assert step.experiment is not None
        task = step.experiment.globals.task
        title = "fine-tunings" if task in FINE_TUNINGS else f"{task} runs"
        trees.setdefault(title, {})[name] = flatten(step.experiment.tree)
    for title, of in trees.items():
        if len(of) > 1:
            section.parts.append(differences(f"Differences between the {title}", of))
        else:
            section.parts.append(Text(f"The only one of the {title}: {next(iter(of))}."))
    return section
