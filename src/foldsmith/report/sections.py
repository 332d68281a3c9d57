"""The sections of a report, made from the files of finished steps."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.config import EnsembleSettings
from foldsmith.data.fold_table import class_sizes, fold_table, fold_warnings
from foldsmith.data.image_table import IMG_INFO
from foldsmith.data.near_duplicates import NEAR_DUPLICATES
from foldsmith.errors import ConfigError, OutputError
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import (
    group_column_of,
    read_folds,
    read_table,
    targets_of,
)
from foldsmith.report import figures
from foldsmith.report.configuration import differences, tree_of
from foldsmith.report.costs import cost_of
from foldsmith.report.experiment_section import experiment_section, missed_probability
from foldsmith.report.finished_run import ensemble_predictions
from foldsmith.report.form_parts import PARTS_OF_FORMS
from foldsmith.report.parts import (
    Part,
    Section,
    Text,
    not_done,
    picture,
    table,
)
from foldsmith.report.pretraining_section import pretraining_section
from foldsmith.report.results import blend_scores
from foldsmith.report.step_section import step_section
from foldsmith.run.state import results_of
from foldsmith.steps.base import Plan, Step
from foldsmith.steps.baselines import scores_of
from foldsmith.steps.checkpoint_choice import (
    LABELS,
    read_inference,
)
from foldsmith.steps.manifest import MANIFEST, Manifest, read_manifest, verified
from foldsmith.steps.members import so_far
from foldsmith.steps.run_records import read_resolved
from foldsmith.steps.status import Status, StepState
from foldsmith.utils.flatten import flatten
from foldsmith.utils.formatting import counted
from foldsmith.utils.hashing import FileHashes

Array = npt.NDArray[np.float64]

# Rows of a table that might have many thousands.
_ROWS = 200


def sections_of(plan: Plan, look_at_ids: Sequence[str] = ()) -> list[Section]:
    """Return the sections of a report, of the steps that are done.

    Args:
        plan: The steps of an experiment.
        look_at_ids: Images to show heat maps of, beside the worst and best.

    Raises:
        ConfigError: There is no labelled image of such an id.
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
            section = experiment_section(project, step, look_at_ids)
        elif step.kind.gathers:
            section = _ensemble(project, step)
        elif step.epochs:
            section = pretraining_section(plan, step)
        else:
            section = step_section(step)
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
            partly, reason = _partly(manifest), str(manifest.facts["reason"])
            return f"{partly[0].upper()}{partly[1:]}. {reason}" if partly else reason
    return ""


def _partly(manifest: Manifest) -> str:
    """Return which members a blend has that waits for others; empty if it has all."""
    members, waiting = manifest.facts["members"], manifest.facts["waiting"]
    return so_far(members, waiting) if waiting else ""


def _out_of_date(step: Step, state: StepState) -> Section:
    section = step_section(step)
    section.parts.append(
        Text(
            f"The results are stale ({state.why}): run the experiment again, or give the report "
            "the overrides of the run."
        )
    )
    return section


def _data(project: ProjectFolder) -> Section:
    section = Section("Data", "data")
    if not project.fold_table.is_file():
        section.parts.append(not_done("Preprocessing"))
        return section
    folds = read_folds(project, None)
    sides = ["height", "width"]
    info = read_table(project.data_dir / IMG_INFO, ["data_type", *sides], number_columns=sides)
    counts = info["data_type"].value_counts()
    group = group_column_of(project, folds)
    sentence = (
        f"{counted(counts.get('train', 0), 'labelled image')}, {counts.get('test', 0)} to predict"
    )
    if group is not None:
        sentence += f", {counted(folds[group].nunique(), 'group')} by {group}"
    section.parts.append(Text(f"{sentence}; predictions are judged by {project.metric.title}."))
    by_target = fold_table(project, folds)
    # A class may be called fold.
    first = "fold" if "fold" not in by_target.columns else "number of the fold"
    rows = by_target.rename_axis(first).reset_index()
    sizes = class_sizes(project, folds)
    of_classes = "" if sizes is None else f"; {sizes.summary()}"
    section.parts.append(table(f"Images of each fold{of_classes}", rows))
    for note in fold_warnings(project, folds):
        section.parts.append(Text(f"{note[0].upper()}{note[1:]}."))
    every = "Every image is a point."
    if len(info) > figures.POINTS:
        every = f"{figures.POINTS} of the images, evenly chosen, are points."
    section.parts.append(picture(every, figures.sizes(info)))
    listed = project.data_dir / NEAR_DUPLICATES
    if listed.is_file():
        near = read_table(listed, ["group"])
        caption = (
            "Near-identical images in different folds, or in train and test: "
            f"{len(near)} in {counted(near['group'].nunique(), 'group')}"
        )
        if len(near) > _ROWS:
            caption += f"; the first {_ROWS}, all in {NEAR_DUPLICATES}"
        section.parts.append(table(caption, near.head(_ROWS)))
    else:
        section.parts.append(Text("No near-identical images in different folds or in the test."))
    return section


def _check_ids(plan: Plan, ids: Sequence[str]) -> None:
    for meta_file in plan.meta_files if ids else ():
        known = set(read_folds(plan.project, meta_file)[plan.project.settings.id_column])
        unknown = [name for name in ids if name not in known]
        if unknown:
            raise ConfigError(f"--look-at {','.join(unknown)}: no labelled image has such an id")


def _ensemble(project: ProjectFolder, step: Step) -> Section:
    assert step.experiment is not None
    section = step_section(step)
    manifest = read_manifest(step.folder / MANIFEST)
    if manifest is None:
        section.parts.append(not_done("This ensemble"))
        return section
    # A blend of the finished members lies in the same folder.
    experiment = read_resolved(project, step.folder)
    settings = EnsembleSettings.model_validate(experiment.tree["ensemble"])
    if partly := _partly(manifest):
        section.parts.append(Text(f"Not finished: {partly}."))
    section.parts.append(Text(str(manifest.facts["reason"])))
    if to_beat := scores_of(manifest):
        section.parts += [Text(f"{line}.") for line in (to_beat.sentence, to_beat.warning) if line]
    section.parts.append(_members(project, manifest))
    scores = blend_scores(step.folder)
    honest = scores.dropna(subset=["cross_fitted"])
    figure = figures.with_intervals(honest, project.metric.title)
    section.parts.append(picture("Believe the cross-fitted scores.", figure))
    section.parts.append(table("Blends, and their gain over the plain mean", scores))
    weights = read_table(verified(step.folder / "weights.csv", manifest), ["experiment"])
    blends = weights.columns.drop("experiment")
    weights[blends] = weights[blends].astype(np.float64)
    section.parts.append(table("Weight of each member in each blend", weights, digits=3))
    folds = read_folds(project, step.experiment.globals.meta_file)
    targets = targets_of(project, folds)
    parts_of_form = PARTS_OF_FORMS.get(project.form.kind)
    if parts_of_form is not None:
        blended = ensemble_predictions(experiment, step.folder)
        section.parts += parts_of_form(project, folds, blended.points)

    def errors_of(folder: Path) -> Array:
        checkpoint, inferred = read_inference(folder, settings.checkpoint)
        if inferred is None:
            raise OutputError(f"{folder}: has predicted nothing yet")
        label = LABELS[checkpoint]
        if project.class_names:
            return missed_probability(project, inferred, folder, label, targets)
        file = verified(folder / f"oof_prediction_by_{label}.npy", inferred)
        oof = project.form.of_stored(np.load(file, allow_pickle=False))
        return project.form.errors(oof, targets)

    names = [Path(member).name for member in settings.experiments]
    if len(names) > 1:
        off = np.stack([errors_of(project.path(member)) for member in settings.experiments])
        with np.errstate(invalid="ignore", divide="ignore"):
            errors: Array = np.corrcoef(off)  # type: ignore[assignment]
        figure = figures.matrix(names, np.nan_to_num(errors), "correlation of the errors")
        section.parts.append(picture("Members that err alike add little to each other.", figure))
    return section


def _members(project: ProjectFolder, manifest: Manifest) -> Part:
    """Return the out-of-fold scores of an ensemble's members, the constant and simple baselines."""
    facts, to_beat = manifest.facts, scores_of(manifest)
    worse = set(facts["worse_than_constant"])
    names, scores = ["constant (the same prediction for every image)"], [facts["constant"]]
    if to_beat is not None:
        names.append(to_beat.title)
        scores.append(to_beat.baseline_score)
    say = ["none: worse than the constant" if name in worse else "" for name in facts["members"]]
    rows = pd.DataFrame(
        {
            "member": [*names, *facts["members"]],
            project.metric.title: [*scores, *facts["member_scores"]],
            "say": [*("" for _ in names), *say],
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
            caption = f"Differences between the {title}" if len(trees) > 1 else f"The {title[:-1]}"
            section.parts.append(differences(caption, trees))
    files = ", ".join(sorted({step.name for step in plan.steps} - {""}))
    section.parts.append(
        Text(f"Experiments: {files}. resolved_config.yml in each output folder has every value.")
    )
    return section
