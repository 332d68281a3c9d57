"""The sections of a report, made from the files of finished steps."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.config import EnsembleSettings, Experiment
from foldsmith.config.settings import FINE_TUNINGS
from foldsmith.data.fold_table import class_sizes, fold_table, fold_warnings
from foldsmith.data.image_table import IMG_INFO
from foldsmith.data.near_duplicates import NEAR_DUPLICATES
from foldsmith.errors import ConfigError, OutputError, one_line
from foldsmith.inference.saliency import COARSE
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import (
    as_written,
    group_column_of,
    photo_paths,
    read_folds,
    read_table,
    targets_of,
)
from foldsmith.report import figures
from foldsmith.report.configuration import differences, tree_of
from foldsmith.report.costs import cost_of
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
from foldsmith.report.results import blend_scores
from foldsmith.run.state import results_of
from foldsmith.steps.base import Plan, Step
from foldsmith.steps.checkpoint_choice import (
    LABELS,
    read_inference,
)
from foldsmith.steps.features import TRAIN_FEATURES
from foldsmith.steps.manifest import MANIFEST, Manifest, read_manifest, verified
from foldsmith.steps.members import task_of
from foldsmith.steps.oof_summary import POOLED, THRESHOLDS, more_epochs_may_help
from foldsmith.steps.status import Status, StepState
from foldsmith.targets.scoring import probabilities_of
from foldsmith.training.files import PROBES_FILE, entries_of
from foldsmith.utils.flatten import flatten
from foldsmith.utils.formatting import counted, number_text
from foldsmith.utils.hashing import FileHashes

Array = npt.NDArray[np.float64]

# Photos of a gallery.
_SHOWN = 12
# Numbers of photos with heat maps.
_WORST, _BEST = 4, 4
# Rows of a table that might have many thousands.
_ROWS = 200
# Photos of a map: more make it slow, and no clearer.
_MAPPED = 4000
# Photos whose neighbours are shown, and how many of them.
_ASKED, _NEIGHBOURS = 6, 5


def sections_of(plan: Plan, look_at_ids: Sequence[str] = ()) -> list[Section]:
    """Return the sections of a report, of the steps that are done.

    Args:
        plan: The steps of an experiment.
        look_at_ids: Photos of which is shown what each model looked at, beside the worst and best.

    Raises:
        ConfigError: There is no labelled photo of such an id.
    """
    project = plan.project
    _check_ids(plan, look_at_ids)
    states = results_of(plan, FileHashes(project.hash_store))
    found = [_data(project)]
    for step in plan.steps:
        state = states[step.label]
        if not step.kind.title:
            continue
        if state.status == Status.STALE:
            found.append(_out_of_date(step, state))
            continue
        if step.kind.predicts:
            section = _experiment(project, step, look_at_ids)
        elif step.kind.gathers:
            section = _ensemble(project, step)
        elif step.epochs:
            section = _pretraining(plan, step)
        else:
            section = _section(step)
        section.parts += _own_parts(plan, step, state)
        found.append(section)
    return [*found, cost_of(plan), _configuration(plan)]


def _own_parts(plan: Plan, step: Step, state: StepState) -> Iterator[Part]:
    """Yield the texts and tables that the kind of a finished step adds."""
    if state.is_done:
        for part in step.kind.report(step, plan):
            yield Text(part) if isinstance(part, str) else table(*part)


def reason_of(plan: Plan) -> str:
    """Return the recommendation of the plan's last ensemble; empty if there is none."""
    for step in reversed(plan.steps):
        manifest = read_manifest(step.kind.manifest(step)) if step.kind.gathers else None
        if manifest is not None:
            return str(manifest.facts["reason"])
    return ""


def _section(step: Step) -> Section:
    title = step.kind.title
    return Section(f"{title} {step.name}", f"{title}-{step.name}".lower())


def _out_of_date(step: Step, state: StepState) -> Section:
    section = _section(step)
    section.parts.append(
        Text(
            f"What is there is out of date ({state.why}): run it again, or give the report the "
            "overrides of the run."
        )
    )
    return section


def _data(project: ProjectFolder) -> Section:
    section = Section("Data", "data")
    if not project.fold_table.is_file():
        section.parts.append(not_done("Preprocessing"))
        return section
    folds = read_folds(project, None)
    settings = project.settings
    sides = ["height", "width"]
    info = read_table(project.data_dir / IMG_INFO, ["data_type", *sides], number_columns=sides)
    counts = info["data_type"].value_counts()
    group = group_column_of(project, folds)
    sentence = (
        f"{counted(counts.get('train', 0), 'labelled photo')}, {counts.get('test', 0)} to predict"
    )
    if group is not None:
        sentence += f", {counted(folds[group].nunique(), 'group')} by {group}"
    section.parts.append(Text(f"{sentence}; predictions are judged by {settings.metric}."))
    by_target = fold_table(project, folds)
    # A class may be called fold.
    first = "fold" if "fold" not in by_target.columns else "number of the fold"
    rows = by_target.rename_axis(first).reset_index()
    sizes = class_sizes(project, folds)
    of_classes = "" if sizes is None else f"; {sizes.summary()}"
    section.parts.append(table(f"Photos of each fold{of_classes}", rows))
    for note in fold_warnings(project, folds):
        section.parts.append(Text(f"{note[0].upper()}{note[1:]}."))
    every = "Every photo is a point."
    if len(info) > figures.POINTS:
        every = f"{figures.POINTS} of the photos, evenly chosen, are points."
    section.parts.append(picture(every, figures.sizes(info)))
    listed = project.data_dir / NEAR_DUPLICATES
    if listed.is_file():
        near = read_table(listed, ["group"])
        caption = (
            "Near-identical photos in different folds, or in train and test: "
            f"{len(near)} in {counted(near['group'].nunique(), 'group')}"
        )
        if len(near) > _ROWS:
            caption += f"; the first {_ROWS}, all in {NEAR_DUPLICATES}"
        section.parts.append(table(caption, near.head(_ROWS)))
    else:
        section.parts.append(Text("No near-identical photos in different folds or in the test."))
    return section


def _pretraining(plan: Plan, step: Step) -> Section:
    section = _section(step)
    log = entries_of(step.folder)
    if not log:
        section.parts.append(not_done("This pretraining"))
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
        file = other.folder / TRAIN_FEATURES
        if experiment is None or not file.is_file():
            continue
        weights = experiment.tree["model"].get("pretrained")
        if not isinstance(weights, str) or project.path(weights).parent != step.folder:
            continue
        fitted = read_manifest(other.kind.manifest(other))
        if fitted is None:
            continue
        features = np.load(verified(file, fitted), allow_pickle=False)
        folds = read_folds(project, experiment.globals.meta_file)
        if len(features) != len(folds):
            continue  # of other tables
        targets = targets_of(project, folds)
        title = f"Labelled photos by the features of {other.name} (principal components)"
        chosen = np.linspace(0, len(folds) - 1, min(_MAPPED, len(folds))).astype(int)
        names = project.class_names
        yield picture(title, figures.map_of(features[chosen], targets[chosen], names))
        yield _neighbours(project, folds, features)
        return


def _neighbours(
    project: ProjectFolder, folds: pd.DataFrame, features: npt.NDArray[np.float32]
) -> Gallery:
    targets = as_written(project, targets_of(project, folds))
    scaled = features - features.mean(axis=0)
    scaled /= np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-9)
    paths = photo_paths(project, folds)
    photos = []
    for k in np.linspace(0, len(folds) - 1, min(_ASKED, len(folds))).astype(int):
        nearest = np.argsort(-(scaled @ scaled[k]), kind="stable")
        row = [k, *(other for other in nearest if other != k)][: _NEIGHBOURS + 1]
        photos += [
            (thumbnail(paths[j], project.intensity_range), f"target {_shown(targets[j])}")
            for j in row
        ]
    caption = "Left a photo, beside it its nearest by cosine of the frozen features"
    return Gallery(caption, photos, _NEIGHBOURS + 1)


def _shown(target: float | str) -> str:
    return target if isinstance(target, str) else number_text(target)


def _check_ids(plan: Plan, ids: Sequence[str]) -> None:
    for meta_file in plan.meta_files if ids else ():
        known = set(read_folds(plan.project, meta_file)[plan.project.settings.id_column])
        unknown = [name for name in ids if name not in known]
        if unknown:
            raise ConfigError(f"--look-at {','.join(unknown)}: no labelled photo has such an id")


def _experiment(project: ProjectFolder, step: Step, look_at_ids: Sequence[str]) -> Section:
    assert step.experiment is not None
    experiment, label = step.experiment, LABELS[step.checkpoint]
    section = _section(step)
    manifest = read_manifest(step.kind.manifest(step))
    if manifest is None:
        section.parts.append(not_done("This experiment"))
        return section
    folds = read_folds(project, experiment.globals.meta_file)
    targets = targets_of(project, folds)
    predictions = verified(step.folder / f"oof_prediction_by_{label}.npy", manifest)
    predicted = np.load(predictions, allow_pickle=False)[:, 0].astype(np.float64)
    scores = pd.read_csv(verified(step.folder / f"score_by_{label}.csv", manifest))
    section.parts += _texts_about(project, step, manifest, _pooled(scores))
    section.parts += _fold_figures(project, step, manifest, scores)
    caption = "Out-of-fold predictions; in the confusion, counts on shares of each row"
    off, values = np.abs(predicted - targets), project.class_values
    if project.class_names:
        section.parts.append(
            picture(caption, figures.confusion(targets, predicted, values, project.class_names))
        )
        off = _missed(project, manifest, step.folder, label, targets)
        section.parts += _misses(project, folds, targets, predicted, off)
    else:
        section.parts.append(picture(caption, figures.predictions(targets, predicted, values)))
        section.parts += _residuals(project, folds, targets, predicted)
    if experiment.globals.task in FINE_TUNINGS:
        ids = list(folds[project.settings.id_column])
        chosen = [ids.index(name) for name in look_at_ids]
        said = _said(project, folds, targets, predicted)
        section.parts += _looked_at(project, step, said, off, chosen)
    return section


def _pooled(scores: pd.DataFrame) -> float:
    """Return the score of all rows together, of a score table."""
    return float(scores.loc[scores["fold"].astype(str) == POOLED, "metric"].iloc[0])


def _texts_about(
    project: ProjectFolder, step: Step, manifest: Manifest, value: float
) -> list[Part]:
    """Return the sentences about an experiment: its score, the constant, more epochs."""
    assert step.experiment is not None
    metric = str(manifest.facts["metric_name"])
    texts: list[Part] = [Text(_sentence(step.experiment, step, manifest, metric, value))]
    constant = manifest.facts.get("constant")
    if constant is not None:
        same = "The constant, the same prediction for every photo"
        texts.append(Text(f"{same}: {metric} {constant:.4f}."))
    advice = more_epochs_may_help(step.folder, project.n_splits)
    if advice:
        texts.append(Text(f"{advice[0].upper()}{advice[1:]}."))
    return texts


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
    of_folds = scores[~scores["fold"].astype(str).isin([POOLED, THRESHOLDS])]
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
            (
                thumbnail(paths[k], project.intensity_range),
                f"{ids[k]}: true {number_text(targets[k])}, predicted {predicted[k]:.2f}",
            )
            for k in rows_
        ]
        yield Gallery(f"{caption} predictions, out of fold", photos)


def _missed(
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
        rows = pd.DataFrame({"photos": by.size(), "share that is right": by.mean()})
        rows = rows.sort_values("share that is right", kind="stable")
        listed = rows.head(30).rename_axis("group").reset_index()
        yield table(f"Hits by {group}: the {len(listed)} of {len(rows)} with fewest", listed)
    truth, said = as_written(project, targets), as_written(project, predicted)
    order = np.argsort(missed, kind="stable")
    paths = photo_paths(project, folds)
    ids = folds[project.settings.id_column].astype(str).to_numpy()
    for caption, rows_ in (("Worst", order[::-1][:_SHOWN]), ("Best", order[:_SHOWN])):
        photos = [
            (
                thumbnail(paths[k], project.intensity_range),
                f"{ids[k]}: {truth[k]} (probability {1 - missed[k]:.2f}), predicted {said[k]}",
            )
            for k in rows_
        ]
        yield Gallery(f"{caption} predictions, out of fold", photos)


def _said(
    project: ProjectFolder, folds: pd.DataFrame, targets: Array, predicted: Array
) -> list[str]:
    """Return a line for each photo: id, true target, prediction."""
    ids = folds[project.settings.id_column].astype(str)
    if project.class_names:
        pairs = zip(as_written(project, targets), as_written(project, predicted), strict=True)
        shown = [f"true {truth}, predicted {said}" for truth, said in pairs]
    else:
        pairs = zip(targets, predicted, strict=True)
        shown = [f"true {number_text(truth)}, predicted {said:.2f}" for truth, said in pairs]
    return [f"{name}: {text}" for name, text in zip(ids, shown, strict=True)]


def _looked_at(
    project: ProjectFolder, step: Step, said: Sequence[str], off: Array, chosen: Sequence[int]
) -> Iterator[Part]:
    """Yield heat maps of chosen photos, the worst and the best ones.

    Args:
        project: The project.
        step: An inference.
        said: What stands below each photo.
        off: How far off each prediction is, shape (n,).
        chosen: Rows of chosen photos.
    """
    order = np.argsort(off, kind="stable").tolist()
    worst = order[::-1][:_WORST]
    best = [row for row in order[:_BEST] if row not in worst]
    wanted = {"Chosen photos": list(chosen), "Worst": worst, "Best": best}
    rows = list(dict.fromkeys(row for of in wanted.values() for row in of))
    try:
        looked, what = look_at(project, step.folder, step.checkpoint, rows)
    except Exception as error:  # a failing model must not stop the report
        yield Text(f"What the models looked at cannot be shown: {one_line(error)}.")
        return
    by_row = dict(zip(rows, looked, strict=True))
    coarsest = min((each.heat.shape for each in looked), key=min)
    if min(coarsest) < COARSE:
        yield Text(
            "What the models looked at is left out: of photos of this size their feature maps have "
            f"{coarsest[0]} x {coarsest[1]} cells, which show no place. Larger photos "
            "(dataset/img_size) have finer maps."
        )
        return
    for title, of in wanted.items():
        if of:
            photos = [(heat_map(by_row[row].view, by_row[row].heat), said[row]) for row in of]
            caption = (
                f"{title}; on the right what the model that has not seen the photo looked at: "
                f"{what} (Grad-CAM)"
            )
            yield Gallery(caption, photos, wide=True)


def _ensemble(project: ProjectFolder, step: Step) -> Section:
    assert step.experiment is not None
    section = _section(step)
    manifest = read_manifest(step.folder / MANIFEST)
    if manifest is None:
        section.parts.append(not_done("This ensemble"))
        return section
    settings = EnsembleSettings.model_validate(step.experiment.tree["ensemble"])
    section.parts.append(Text(str(manifest.facts["reason"])))
    section.parts.append(_members(project, manifest))
    scores = blend_scores(step.folder)
    honest = scores.dropna(subset=["cross_fitted"])
    figure = figures.with_intervals(honest, project.settings.metric)
    section.parts.append(picture("Believe the cross-fitted scores.", figure))
    section.parts.append(table("Blends, and their gain over the plain mean", scores))
    weights = read_table(verified(step.folder / "weights.csv", manifest), ["experiment"])
    blends = weights.columns.drop("experiment")
    weights[blends] = weights[blends].astype(np.float64)
    section.parts.append(table("Weight of each member in each blend", weights, digits=3))
    targets = targets_of(project, read_folds(project, step.experiment.globals.meta_file))

    def errors_of(folder: Path) -> Array:
        checkpoint, inferred = read_inference(folder, settings.checkpoint)
        if inferred is None:
            raise OutputError(f"{folder}: has predicted nothing yet")
        label = LABELS[checkpoint]
        if project.class_names:
            return _missed(project, inferred, folder, label, targets)
        file = verified(folder / f"oof_prediction_by_{label}.npy", inferred)
        oof = np.load(file, allow_pickle=False)[:, 0]
        off: Array = oof.astype(np.float64) - targets
        return off

    names = [Path(member).name for member in settings.experiments]
    if len(names) > 1:
        off = np.stack([errors_of(project.path(member)) for member in settings.experiments])
        with np.errstate(invalid="ignore", divide="ignore"):
            errors: Array = np.corrcoef(off)  # type: ignore[assignment]
        figure = figures.matrix(names, np.nan_to_num(errors), "correlation of the errors")
        section.parts.append(picture("Members that err alike add little to each other.", figure))
    return section


def _members(project: ProjectFolder, manifest: Manifest) -> Part:
    """Return the out-of-fold scores of an ensemble's members and of the constant."""
    facts = manifest.facts
    worse = set(facts["worse_than_constant"])
    say = ["none: worse than the constant" if name in worse else "" for name in facts["members"]]
    rows = pd.DataFrame(
        {
            "member": ["constant (the same prediction for every photo)", *facts["members"]],
            project.settings.metric: [facts["constant"], *facts["member_scores"]],
            "say": ["", *say],
        }
    )
    return table("Out-of-fold score of each member", rows)


def _configuration(plan: Plan) -> Section:
    section = Section("Configuration", "configuration")
    pretrainings = [step for step in plan.steps if step.kind.gives_files]
    experiments = [step for step in plan.steps if step.kind.predicts]
    for title, steps in (("pretrainings", pretrainings), ("experiments", experiments)):
        trees = {step.name: flatten(tree_of(step)) for step in steps}
        if trees:
            caption = f"What differs between the {title}" if len(trees) > 1 else f"The {title[:-1]}"
            section.parts.append(differences(caption, trees))
    files = ", ".join(sorted({step.name for step in plan.steps} - {""}))
    section.parts.append(
        Text(f"Experiments: {files}. resolved_config.yml in each output folder has every value.")
    )
    return section
