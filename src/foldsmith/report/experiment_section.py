"""The section of an experiment that predicts images: scores, figures, images, heat maps."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.config import Experiment
from foldsmith.config.settings import FINE_TUNINGS, MEMBERS
from foldsmith.errors import one_line
from foldsmith.inference.saliency import COARSE
from foldsmith.project import ProjectFolder
from foldsmith.project.class_weights import class_weights_text
from foldsmith.project.tables import (
    group_column_of,
    image_paths,
    read_folds,
    targets_of,
)
from foldsmith.report import figures
from foldsmith.report.form_parts import PARTS_OF_FORMS
from foldsmith.report.heat_maps import look_at
from foldsmith.report.parts import (
    Gallery,
    Part,
    Section,
    Text,
    heat_map,
    not_done,
    picture,
    table,
    thumbnail,
)
from foldsmith.report.step_section import step_section
from foldsmith.steps.base import Step
from foldsmith.steps.checkpoint_choice import (
    LABELS,
)
from foldsmith.steps.epoch_advice import more_epochs_may_help
from foldsmith.steps.manifest import Manifest, read_manifest, verified
from foldsmith.steps.members import task_of
from foldsmith.steps.oof_summary import POOLED, PRIORS, THRESHOLDS
from foldsmith.targets.scoring import probabilities_of
from foldsmith.training.files import entries_of
from foldsmith.utils.flatten import flatten
from foldsmith.utils.formatting import number_text

Array = npt.NDArray[np.float64]

# Images of a gallery.
_SHOWN = 12
# Numbers of images with heat maps.
_WORST, _BEST = 4, 4


def experiment_section(project: ProjectFolder, step: Step, look_at_ids: Sequence[str]) -> Section:
    """Return the section of an experiment.

    Args:
        project: The project.
        step: The finished step that predicts.
        look_at_ids: Images with heat maps, beside the worst and best.
    """
    assert step.experiment is not None
    experiment, label = step.experiment, LABELS[step.checkpoint]
    section = step_section(step)
    manifest = read_manifest(step.kind.manifest(step))
    if manifest is None:
        section.parts.append(not_done("This experiment"))
        return section
    folds = read_folds(project, experiment.globals.meta_file)
    targets = targets_of(project, folds)
    predictions = verified(step.folder / f"oof_prediction_by_{label}.npy", manifest)
    predicted = project.form.of_stored(np.load(predictions, allow_pickle=False))
    scores = pd.read_csv(verified(step.folder / f"score_by_{label}.csv", manifest))
    section.parts += _texts_about(project, step, manifest, _pooled(scores))
    section.parts += _fold_figures(project, step, manifest, scores)
    parts_of_form = PARTS_OF_FORMS.get(project.form.kind)
    if parts_of_form is not None:
        section.parts += parts_of_form(project, folds, predicted)
        off = project.form.mean_errors(predicted, targets)
        section.parts += _heat_maps(project, step, folds, targets, predicted, off, look_at_ids)
        return section
    caption = "Out-of-fold predictions; in the confusion, counts on shares of each row"
    off, values = np.abs(predicted - targets), project.class_values
    if project.class_names:
        section.parts.append(
            picture(caption, figures.confusion(targets, predicted, values, project.class_names))
        )
        off = missed_probability(project, manifest, step.folder, label, targets)
        section.parts += _misses(project, folds, targets, predicted, off)
    else:
        section.parts.append(picture(caption, figures.predictions(targets, predicted, values)))
        section.parts += _residuals(project, folds, targets, predicted)
    section.parts += _heat_maps(project, step, folds, targets, predicted, off, look_at_ids)
    return section


def _heat_maps(
    project: ProjectFolder,
    step: Step,
    folds: pd.DataFrame,
    targets: Array,
    predicted: Array,
    off: Array,
    look_at_ids: Sequence[str],
) -> Iterator[Part]:
    """Yield the heat maps of a fine-tuning; nothing of other experiments."""
    assert step.experiment is not None
    if step.experiment.globals.task not in FINE_TUNINGS:
        return
    ids = list(folds[project.settings.id_column])
    chosen = [ids.index(name) for name in look_at_ids]
    said = _said(project, folds, targets, predicted)
    yield from _looked_at(project, step, said, off, chosen)


def _pooled(scores: pd.DataFrame) -> float:
    """Return the score of all rows together, of a score table."""
    return float(scores.loc[scores["fold"].astype(str) == POOLED, "metric"].iloc[0])


def _texts_about(
    project: ProjectFolder, step: Step, manifest: Manifest, value: float
) -> list[Part]:
    """Return the sentences about an experiment: score, constant, weights, more epochs."""
    assert step.experiment is not None
    metric = str(manifest.facts["metric_name"])
    texts: list[Part] = [Text(_sentence(step.experiment, step, manifest, metric, value))]
    constant = manifest.facts.get("constant")
    if constant is not None:
        same = "The constant, the same prediction for every image"
        texts.append(Text(f"{same}: {metric} {constant:.4f}."))
    judged = project.settings.metric_weight_column
    if judged is not None:
        texts.append(Text(f"The metric weighs rows by the column {judged}."))
    weights = _weights_text(project, step.experiment)
    if weights:
        texts.append(Text(weights))
    advice = more_epochs_may_help(step.folder, project.n_splits)
    if advice:
        texts.append(Text(f"{advice[0].upper()}{advice[1:]}."))
    return texts


def _weights_text(project: ProjectFolder, experiment: Experiment) -> str:
    """Return the keys that weight or balance the images of a training; empty without any."""
    settings = experiment.globals
    if settings.task not in MEMBERS:
        return ""
    keys = {
        "sample_weight_column": project.settings.sample_weight_column,
        "class_weights": class_weights_text(settings.class_weights),
        "sampler": flatten(experiment.tree).get("loader/train/sampler"),
    }
    unchanged = (None, "none", "uniform")
    named = [f"{key}: {value}" for key, value in keys.items() if value not in unchanged]
    return f"Weights of images: {'; '.join(named)}." if named else ""


def _fold_figures(
    project: ProjectFolder, step: Step, manifest: Manifest, scores: pd.DataFrame
) -> list[Part]:
    """Return learning curves and scores of the folds."""
    parts: list[Part] = []
    logs = {
        f"fold {fold}": log
        for fold in range(project.n_splits)
        if (log := entries_of(step.folder / f"fold{fold}"))
    }
    if logs:
        keys = ["train/loss", "val/loss", "val/metric"]
        parts.append(picture("Learning curves of all folds", figures.curves(logs, keys)))
    of_folds = scores[~scores["fold"].astype(str).isin([POOLED, PRIORS, THRESHOLDS])]
    spread = of_folds["metric"].std()
    caption = f"Out of fold; standard deviation between the folds {spread:.4f}"
    facts = manifest.facts
    figure = figures.by_fold(
        of_folds, _pooled(scores), str(facts["metric_name"]), facts.get("constant")
    )
    return [*parts, picture(caption, figure), table("Scores of the folds", scores)]


def _sentence(
    experiment: Experiment, step: Step, manifest: Manifest, metric: str, value: float
) -> str:
    task = experiment.globals.task
    text = f"{task}, {step.folder.name}: out-of-fold {metric} {value:.4f}"
    if not manifest.facts.get("chooses_epochs", True):
        return f"{text}; no epoch is chosen."
    if step.checkpoint == "last":
        return f"{text}, of the last epochs."
    if step.checkpoint == "common":
        return f"{text}; one epoch for all folds, the best of their mean curve."
    gap = manifest.facts.get("selection_gap")
    said = f" (selection gap {gap:+.4f}: this much better than the last epoch)" if gap else ""
    return f"{text}; each fold's epoch was chosen by its own validation{said}."


def _residuals(
    project: ProjectFolder, folds: pd.DataFrame, targets: Array, predicted: Array
) -> Iterator[Part]:
    """Yield residuals by group, and the worst and best predictions."""
    residuals = predicted - targets
    group = group_column_of(project, folds)
    if group is not None:
        by = pd.Series(residuals).groupby(folds[group].astype(str).to_numpy())
        rows = pd.DataFrame(
            {
                "images": by.size(),
                "mean residual": by.mean(),
                "RMSE": by.apply(lambda r: float(np.sqrt((r**2).mean()))),
            }
        )
        rows = rows.sort_values("RMSE", ascending=False)
        listed = rows.head(30).rename_axis("group").reset_index()
        caption = f"Residuals (predicted less true) by {group}"
        if len(listed) < len(rows):
            caption += f": the {len(listed)} of {len(rows)} groups with the largest errors"
        yield table(caption, listed)
    order = np.argsort(np.abs(residuals), kind="stable")
    paths = image_paths(project, folds)
    ids = folds[project.settings.id_column].astype(str).to_numpy()
    for caption, rows_ in (("Worst", order[::-1][:_SHOWN]), ("Best", order[:_SHOWN])):
        images = [
            (
                thumbnail(paths[k], project.intensity_range),
                f"{ids[k]}: true {number_text(targets[k])}, predicted {predicted[k]:.2f}",
            )
            for k in rows_
        ]
        yield Gallery(f"{caption} predictions, out of fold", images)


def missed_probability(
    project: ProjectFolder, manifest: Manifest, folder: Path, label: str, targets: Array
) -> Array:
    """Return the probability that an experiment gave all classes but the true one, shape (n,)."""
    file = verified(folder / f"oof_logit_by_{label}.npy", manifest)
    logits = np.load(file, allow_pickle=False)
    task = task_of(project, folder, str(manifest.facts["task"]))
    probabilities = probabilities_of(task, logits)
    missed: Array = 1 - probabilities[np.arange(len(targets)), targets.astype(np.int64)]
    return missed


def _misses(
    project: ProjectFolder, folds: pd.DataFrame, targets: Array, predicted: Array, missed: Array
) -> Iterator[Part]:
    """Yield hits by group, and the worst and best predictions, of classes without an order."""
    group = group_column_of(project, folds)
    if group is not None:
        by = pd.Series(predicted == targets).groupby(folds[group].astype(str).to_numpy())
        rows = pd.DataFrame({"images": by.size(), "share that is right": by.mean()})
        rows = rows.sort_values("share that is right", kind="stable")
        listed = rows.head(30).rename_axis("group").reset_index()
        yield table(f"Hits by {group}: the {len(listed)} of {len(rows)} with fewest", listed)
    truth, said = project.form.written(targets), project.form.written(predicted)
    order = np.argsort(missed, kind="stable")
    paths = image_paths(project, folds)
    ids = folds[project.settings.id_column].astype(str).to_numpy()
    for caption, rows_ in (("Worst", order[::-1][:_SHOWN]), ("Best", order[:_SHOWN])):
        images = [
            (
                thumbnail(paths[k], project.intensity_range),
                f"{ids[k]}: {truth[k]} (probability {1 - missed[k]:.2f}), predicted {said[k]}",
            )
            for k in rows_
        ]
        yield Gallery(f"{caption} predictions, out of fold", images)


def _said(
    project: ProjectFolder, folds: pd.DataFrame, targets: Array, predicted: Array
) -> list[str]:
    """Return a line for each image: id, true target, prediction."""
    ids = folds[project.settings.id_column].astype(str)
    of_all = zip(ids, project.form.shown(targets), project.form.said(predicted), strict=True)
    return [f"{name}: true {truth}, predicted {said}" for name, truth, said in of_all]


def _looked_at(
    project: ProjectFolder, step: Step, said: Sequence[str], off: Array, chosen: Sequence[int]
) -> Iterator[Part]:
    """Yield heat maps of chosen images, the worst and the best ones.

    Args:
        project: The project.
        step: An inference.
        said: Caption of each image.
        off: How far off each prediction is, shape (n,).
        chosen: Rows of chosen images.
    """
    order = np.argsort(off, kind="stable").tolist()
    worst = order[::-1][:_WORST]
    best = [row for row in order[:_BEST] if row not in worst]
    wanted = {"Chosen images": list(chosen), "Worst": worst, "Best": best}
    rows = list(dict.fromkeys(row for of in wanted.values() for row in of))
    try:
        looked, what = look_at(project, step.folder, step.checkpoint, rows)
    except Exception as error:  # a failing model must not stop the report
        yield Text(f"The heat maps cannot be drawn: {one_line(error)}.")
        return
    by_row = dict(zip(rows, looked, strict=True))
    coarsest = min((each.heat.shape for each in looked), key=min)
    if min(coarsest) < COARSE:
        yield Text(
            "Heat maps are omitted: for images of this size the feature maps have "
            f"{coarsest[0]} x {coarsest[1]} cells, too few to show a place. Larger images "
            "(dataset/img_size) give finer maps."
        )
        return
    for title, of in wanted.items():
        if of:
            images = [(heat_map(by_row[row].view, by_row[row].heat), said[row]) for row in of]
            caption = (
                f"{title}; on the right the heat map of the model that was not trained on the "
                f"image: {what} (Grad-CAM)"
            )
            yield Gallery(caption, images, wide=True)
