"""What a report says: the sections, made from the files that finished steps have left."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.config import EnsembleSettings, Experiment, Project
from foldsmith.config.flatten import flatten
from foldsmith.config.yaml_io import read_yaml
from foldsmith.data.duplicates import NEAR_DUPLICATES
from foldsmith.data.statistics import IMG_INFO
from foldsmith.data.tables import (
    FOLD_COLUMN,
    group_column_of,
    photo_paths,
    read_folds,
    read_table,
    targets_of,
)
from foldsmith.hashing import FileHashes
from foldsmith.pipeline.plan import Plan, Step
from foldsmith.pipeline.state import StepState, states_of
from foldsmith.pipeline.table import duration
from foldsmith.report import figures
from foldsmith.report.parts import Gallery, Part, Section, Text, picture, table, thumbnail
from foldsmith.report.results import blend_scores, log_entries
from foldsmith.stages.frozen import TRAIN_FEATURES
from foldsmith.stages.manifest import MANIFEST, Manifest, read_manifest
from foldsmith.stages.output_folder import RESOLVED_CONFIG
from foldsmith.stages.scores import POOLED, THRESHOLDS
from foldsmith.stages.selection import LABELS, inference_manifest
from foldsmith.tasks.metrics import value_metric
from foldsmith.training.extensions.probe import PROBES_FILE

Array = npt.NDArray[np.float64]

_TITLES = {"pretrain": "Pretraining", "infer": "Experiment", "ensemble": "Ensemble"}

# Photos of a gallery.
_SHOWN = 12
# Rows of a table that might have many thousands.
_ROWS = 200
# Photos of a map: more make it slow, and no clearer.
_MAPPED = 4000
# Photos whose neighbours are shown, and how many of them.
_ASKED, _NEIGHBOURS = 6, 5


def sections_of(plan: Plan) -> list[Section]:
    """Return the sections of a report, of the steps that are done.

    Args:
        plan: The steps of an experiment.
    """
    project = plan.project
    states = states_of(plan, FileHashes(project.hash_store))
    found = [_data(project)]
    for step in plan.steps:
        state = states[step.label]
        if step.kind in _TITLES and state.status == "stale":
            found.append(_out_of_date(step, state))
        elif step.kind == "pretrain":
            found.append(_pretraining(plan, step))
        elif step.kind == "infer":
            found.append(_experiment(project, step))
        elif step.kind == "ensemble":
            found.append(_ensemble(project, step))
    return [*found, _cost(plan), _configuration(plan)]


def reason_of(plan: Plan) -> str:
    """Return what the plan's last ensemble says is to be submitted; empty if there is none."""
    for step in reversed(plan.steps):
        manifest = read_manifest(step.folder / MANIFEST) if step.kind == "ensemble" else None
        if manifest is not None:
            return str(manifest.facts["reason"])
    return ""


def _section(step: Step) -> Section:
    return Section(f"{_TITLES[step.kind]} {step.name}", f"{_TITLES[step.kind]}-{step.name}".lower())


def _out_of_date(step: Step, state: StepState) -> Section:
    section = _section(step)
    section.parts.append(
        Text(
            f"What is there is out of date ({state.why}): run it again, or give the report the "
            "overrides of the run."
        )
    )
    return section


def _not_done(what: str) -> Text:
    return Text(f"{what} is not done yet.")


def _data(project: Project) -> Section:
    section = Section("Data", "data")
    if not project.fold_table.is_file():
        section.parts.append(_not_done("Preprocessing"))
        return section
    folds = read_folds(project, None)
    settings = project.settings
    info = read_table(project.data_dir / IMG_INFO, ["data_type", "height", "width"])
    counts = info["data_type"].value_counts()
    group = group_column_of(project, folds)
    sentence = f"{counts.get('train', 0)} labelled photos, {counts.get('test', 0)} to predict"
    if group is not None:
        sentence += f", {folds[group].nunique()} groups by {group}"
    section.parts.append(Text(f"{sentence}; predictions are judged by {settings.metric}."))
    targets = folds[settings.target_column]
    shown = targets if targets.nunique() <= 20 else pd.qcut(targets, 4, duplicates="drop")
    by_target = pd.crosstab(folds[FOLD_COLUMN], shown)
    by_target.columns = [f"target {name}" for name in by_target.columns]
    by_target["photos"] = by_target.sum(axis=1)
    if group is not None:
        by_target["groups"] = folds.groupby(FOLD_COLUMN)[group].nunique()
    section.parts.append(table("Photos of each fold", by_target.reset_index()))
    section.parts.append(picture("Every photo is a point.", figures.sizes(info)))
    listed = project.data_dir / NEAR_DUPLICATES
    if listed.is_file():
        pairs = pd.read_csv(listed, dtype=str)
        caption = (
            f"{len(pairs)} pairs of near-identical photos in different folds, or in train and test"
        )
        if len(pairs) > _ROWS:
            caption += f"; the first {_ROWS}, all in {NEAR_DUPLICATES}"
        section.parts.append(table(caption, pairs.head(_ROWS)))
    else:
        section.parts.append(Text("No near-identical photos in different folds or in the test."))
    return section


def _pretraining(plan: Plan, step: Step) -> Section:
    section = _section(step)
    log = log_entries(step.folder)
    if not log:
        section.parts.append(_not_done("This pretraining"))
        return section
    keys = [key for key in ("train/loss", "train/std", "lr") if any(key in e for e in log)]
    section.parts.append(
        picture(
            "Loss; spread of the features (near 0: collapsed); learning rate",
            figures.curves({step.name: log}, keys),
        )
    )
    probes = step.folder / PROBES_FILE
    if probes.is_file():
        rows = pd.read_csv(probes)
        names = [name for name in rows.columns if name not in ("epoch", "best")]
        entries = rows.to_dict("records")
        section.parts.append(
            picture(
                "Probes of the frozen features on the project's folds",
                figures.curves({step.name: entries}, names),  # type: ignore[dict-item]
            )
        )
    section.parts += _features(plan, step)
    return section


def _features(plan: Plan, step: Step) -> Iterator[Part]:
    """Yield the map of the features and nearest neighbours, where a member has kept them."""
    project = plan.project
    for other in plan.steps:
        experiment = other.experiment
        if experiment is None or experiment.globals.task != "frozen-features":
            continue
        weights = experiment.tree["model"].get("pretrained")
        file = other.folder / TRAIN_FEATURES
        if not isinstance(weights, str) or project.path(weights).parent != step.folder:
            continue
        if not file.is_file():
            continue
        features = np.load(file, allow_pickle=False)
        folds = read_folds(project, experiment.globals.meta_file)
        if len(features) != len(folds):
            continue  # of other tables
        targets = targets_of(project, folds).astype(np.float64)
        title = f"Labelled photos by the features of {other.name} (principal components)"
        chosen = np.linspace(0, len(folds) - 1, min(_MAPPED, len(folds))).astype(int)
        yield picture(title, figures.map_of(features[chosen], targets[chosen]))
        yield _neighbours(project, folds, features, targets)
        return


def _neighbours(
    project: Project, folds: pd.DataFrame, features: npt.NDArray[np.float32], targets: Array
) -> Gallery:
    scaled = features - features.mean(axis=0)
    scaled /= np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-9)
    paths = photo_paths(project, folds)
    photos = []
    for k in np.linspace(0, len(folds) - 1, min(_ASKED, len(folds))).astype(int):
        nearest = np.argsort(-(scaled @ scaled[k]), kind="stable")
        row = [k, *(other for other in nearest if other != k)][: _NEIGHBOURS + 1]
        photos += [(thumbnail(paths[j]), f"target {targets[j]:g}") for j in row]
    caption = "Left a photo, beside it its nearest by cosine of the frozen features"
    return Gallery(caption, photos, _NEIGHBOURS + 1)


def _experiment(project: Project, step: Step) -> Section:
    assert step.experiment is not None
    experiment, label = step.experiment, LABELS[step.criterion]
    section = _section(step)
    manifest = read_manifest(inference_manifest(step.folder, step.criterion))
    if manifest is None:
        section.parts.append(_not_done("This experiment"))
        return section
    folds = read_folds(project, experiment.globals.meta_file)
    targets = targets_of(project, folds).astype(np.float64)
    predicted = np.load(step.folder / f"oof_prediction_by_{label}.npy", allow_pickle=False)[:, 0]
    predicted = predicted.astype(np.float64)
    scores = pd.read_csv(step.folder / f"score_by_{label}.csv")
    kinds = scores["fold"].astype(str)
    value = float(scores.loc[kinds == POOLED, "metric"].iloc[0])
    metric = _metric_of(project, experiment)
    section.parts.append(Text(_sentence(experiment, step, manifest, metric, value)))
    logs = {
        f"fold {fold}": log
        for fold in range(project.n_splits)
        if (log := log_entries(step.folder / f"fold{fold}"))
    }
    if logs:
        keys = ["train/loss", "val/loss", "val/metric"]
        section.parts.append(picture("Learning curves of all folds", figures.curves(logs, keys)))
    of_folds = scores[~kinds.isin([POOLED, THRESHOLDS])]
    spread = of_folds["metric"].std()
    caption = f"Out of fold; standard deviation between the folds {spread:.4f}"
    section.parts.append(picture(caption, figures.by_fold(of_folds, value, metric)))
    section.parts.append(table("Scores of the folds", scores))
    values = project.class_values
    section.parts.append(
        picture(
            "Out-of-fold predictions; in the confusion, counts on shares of each row",
            figures.predictions(targets, predicted, values),
        )
    )
    section.parts += _residuals(project, folds, targets, predicted)
    return section


def _metric_of(project: Project, experiment: Experiment) -> str:
    """Return the name of what an experiment's folds are scored by."""
    if experiment.globals.task == "frozen-features":
        return value_metric(project).name
    kind = str(experiment.tree["eval"]["metric"]["type"])
    return project.settings.metric if kind == "ProjectMetric" else kind


def _sentence(
    experiment: Experiment, step: Step, manifest: Manifest, metric: str, value: float
) -> str:
    task = experiment.globals.task
    text = f"{task}, {step.folder.name}: out-of-fold {metric} {value:.4f}"
    if task == "frozen-features":
        return f"{text}; no epoch is chosen."
    if step.criterion == "last":
        return f"{text}, of the last epochs."
    if step.criterion == "common":
        return f"{text}; one epoch for all folds, the best of their mean curve."
    gap = manifest.facts.get("selection_gap")
    said = f" (selection gap {gap:+.4f}: by so much it looks better than the last)" if gap else ""
    return f"{text}; each fold's epoch was chosen by its own validation{said}."


def _residuals(
    project: Project, folds: pd.DataFrame, targets: Array, predicted: Array
) -> Iterator[Part]:
    """Yield residuals by group, and the worst and best predictions."""
    residuals = predicted - targets
    group = group_column_of(project, folds)
    if group is not None:
        by = pd.Series(residuals).groupby(folds[group].astype(str).to_numpy())
        rows = pd.DataFrame(
            {
                "photos": by.size(),
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
    paths = photo_paths(project, folds)
    ids = folds[project.settings.id_column].astype(str).to_numpy()
    for caption, rows_ in (("Worst", order[::-1][:_SHOWN]), ("Best", order[:_SHOWN])):
        photos = [
            (thumbnail(paths[k]), f"{ids[k]}: true {targets[k]:g}, predicted {predicted[k]:.2f}")
            for k in rows_
        ]
        yield Gallery(f"{caption} predictions, out of fold", photos)


def _ensemble(project: Project, step: Step) -> Section:
    assert step.experiment is not None
    section = _section(step)
    manifest = read_manifest(step.folder / MANIFEST)
    if manifest is None:
        section.parts.append(_not_done("This ensemble"))
        return section
    settings = EnsembleSettings.model_validate(step.experiment.tree["ensemble"])
    section.parts.append(Text(str(manifest.facts["reason"])))
    scores = blend_scores(step.folder)
    honest = scores.dropna(subset=["cross_fitted"])
    figure = figures.with_intervals(honest, project.settings.metric)
    section.parts.append(picture("Believe the cross-fitted scores.", figure))
    section.parts.append(table("Blends, and their gain over the plain mean", scores))
    weights = pd.read_csv(step.folder / "weights.csv")
    section.parts.append(table("Weight of each member in each blend", weights, digits=3))
    label = LABELS[settings.criterion]
    oof = [
        np.load(project.path(member) / f"oof_prediction_by_{label}.npy", allow_pickle=False)[:, 0]
        for member in settings.experiments
    ]
    if len(oof) > 1:
        targets = targets_of(project, read_folds(project, step.experiment.globals.meta_file))
        with np.errstate(invalid="ignore", divide="ignore"):
            errors: Array = np.corrcoef(np.stack(oof).astype(np.float64) - targets)  # type: ignore[assignment]
        names = [Path(member).name for member in settings.experiments]
        figure = figures.matrix(names, np.nan_to_num(errors), "correlation of the errors")
        section.parts.append(picture("Members that err alike add little to each other.", figure))
    return section


def _cost(plan: Plan) -> Section:
    section = Section("Cost", "cost")
    records = []
    for step in plan.steps:
        for manifest, folder in _manifests(plan.project, step):
            speeds = [e["images_per_s"] for e in log_entries(folder) if "images_per_s" in e]
            facts = manifest.facts
            records.append(
                {
                    "step": step.label,
                    "seconds": round(float(facts.get("wall_s", 0.0)), 1),
                    "images/s": round(float(np.median(speeds))) if speeds else None,
                    "device": facts.get("device", ""),
                    "finished": str(facts.get("finished", "")),
                }
            )
    if not records:
        section.parts.append(_not_done("Anything"))
        return section
    frame = pd.DataFrame(records)
    total = float(frame["seconds"].sum())
    section.parts.append(Text(f"{duration(total)} of work in {len(frame)} finished steps."))
    frame["images/s"] = frame["images/s"].map(lambda v: "" if pd.isna(v) else f"{v:.0f}")
    section.parts.append(table("Steps; images per second of the median epoch", frame, digits=1))
    return section


def _manifests(project: Project, step: Step) -> Iterator[tuple[Manifest, Path]]:
    if step.kind == "preprocess":
        files = [project.data_dir / "preprocess_manifest.json"]
    elif step.kind == "infer":
        files = [inference_manifest(step.folder, step.criterion)]
    else:
        files = [step.folder / MANIFEST]
    for file in files:
        manifest = read_manifest(file)
        if manifest is not None:
            yield manifest, file.parent


def _configuration(plan: Plan) -> Section:
    section = Section("Configuration", "configuration")
    for title, kinds in (("pretrainings", ("pretrain",)), ("experiments", ("infer",))):
        trees = {step.name: flatten(_tree(step)) for step in plan.steps if step.kind in kinds}
        if trees:
            caption = f"What differs between the {title}" if len(trees) > 1 else f"The {title[:-1]}"
            section.parts.append(_differences(caption, trees))
    files = ", ".join(sorted({step.name for step in plan.steps} - {""}))
    section.parts.append(
        Text(f"Experiments: {files}. resolved_config.yml in each output folder has every value.")
    )
    return section


def _tree(step: Step) -> dict[str, Any]:
    """Return the configuration that was run; of a step that was not, the one that would be."""
    for folder in (step.folder, step.folder / "fold0"):
        if (folder / RESOLVED_CONFIG).is_file():
            return dict(read_yaml(folder / RESOLVED_CONFIG))
    assert step.experiment is not None
    return step.experiment.tree


def _differences(caption: str, trees: dict[str, dict[str, Any]]) -> Part:
    keys = sorted({key for tree in trees.values() for key in tree})
    rows: list[Sequence[str]] = []
    for key in keys:
        values = ["" if key not in tree else str(tree[key]) for tree in trees.values()]
        if len(trees) == 1 or len(set(values)) > 1:
            rows.append([key, *values])
    return table(caption, pd.DataFrame(rows, columns=["key", *trees]))
