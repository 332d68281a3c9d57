"""How far each step of a plan is, and how long the rest takes."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from foldsmith.config.backbones import BACKBONE_OF_PROBE
from foldsmith.errors import FoldsmithError, OutputError, one_line
from foldsmith.project import ProjectFolder
from foldsmith.run.plan import Plan, Step
from foldsmith.steps.checkpoint_choice import choose, inference_manifest
from foldsmith.steps.fingerprint import (
    ensemble_inputs,
    frozen_inputs,
    infer_inputs,
    preprocess_inputs,
    pretrain_inputs,
    train_inputs,
    without_probe,
)
from foldsmith.steps.manifest import (
    MANIFEST,
    PREPROCESS_MANIFEST,
    UNFINISHED,
    Inputs,
    Manifest,
    changed_outputs,
    differences,
    read_manifest,
)
from foldsmith.steps.members import member_hashes
from foldsmith.steps.output_folder import is_record, state_of
from foldsmith.steps.pretrain import may_be_longer
from foldsmith.training.files import PROGRESS_FILE
from foldsmith.utils.flatten import flatten
from foldsmith.utils.hashing import FileHashes
from foldsmith.utils.locking import holder
from foldsmith.utils.memo import one_look

# Settings that change how long a photo takes, beside the sections of the model and the photos.
_COSTLY = ("globals/freeze_backbone", "globals/tta", "globals/enable_amp", "globals/amp_dtype")

Status = Literal["done", "to do", "stale", "running"]


@dataclass(frozen=True)
class StepState:
    """How far a step is.

    Attributes:
        status: ``done``, ``to do`` (never finished), ``stale`` (finished, but from other inputs
            than today's) or ``running`` (by a process that lives).
        why: What is changed, or how far it is.
        epochs_left: Epochs still to train.
    """

    status: Status
    why: str = ""
    epochs_left: int = 0


@dataclass
class Speeds:
    """Seconds that epochs and whole steps took, by experiment.

    Attributes:
        epoch_s: Name of the experiment -> seconds per epoch.
        step_s: Label of the step -> seconds, for steps without epochs.
        estimated: Label of a step that was never measured -> estimated seconds that it takes.
    """

    epoch_s: dict[str, float] = field(default_factory=dict)
    step_s: dict[str, float] = field(default_factory=dict)
    estimated: dict[str, float] = field(default_factory=dict)

    def left(self, step: Step, state: StepState) -> float | None:
        """Return the seconds a step still takes; None if they are not known."""
        measured = self.measured(step, state)
        return self.estimated.get(step.label) if measured is None else measured

    def measured(self, step: Step, state: StepState) -> float | None:
        """Return the seconds a step still takes as they were measured; None if they were not."""
        if state.status == "done":
            return 0.0
        if not step.epochs:
            return self.step_s.get(step.label)
        seconds = self.epoch_s.get(step.name)
        return None if seconds is None else seconds * state.epochs_left


def manifest_path(step: Step) -> Path:
    """Return where a step leaves its manifest."""
    if step.kind == "preprocess":
        return step.folder / PREPROCESS_MANIFEST
    if step.kind == "infer":
        return inference_manifest(step.folder, step.criterion)
    return step.folder / MANIFEST


def inputs_of(
    step: Step, plan: Plan, hashes: FileHashes, weights_may_be_gone: bool = False
) -> Inputs:
    """Return the inputs of a step as today's files give them.

    Args:
        step: The step.
        plan: Its plan.
        hashes: Hashes of files.
        weights_may_be_gone: As for :func:`results_of`.

    Raises:
        FoldsmithError: A table is wrong, or something that it needs is not there.
    """
    if step.kind == "preprocess" or step.experiment is None:
        return preprocess_inputs(plan.project, hashes)
    if step.kind == "pretrain":
        return pretrain_inputs(step.experiment, plan.types, hashes)
    if step.kind == "train":
        return train_inputs(step.experiment, step.fold or 0, plan.types, hashes)
    if step.experiment.globals.task == "frozen-features":
        return frozen_inputs(step.experiment, plan.types, hashes)
    if step.kind == "infer":
        chosen, n_splits = {}, plan.project.n_splits
        for fold in range(n_splits):
            manifest = read_manifest(step.folder / f"fold{fold}" / MANIFEST)
            if manifest is None:
                raise OutputError(f"{step.folder}: fold {fold} is not trained")
            known = _inferred_weights(step, fold) if weights_may_be_gone else None
            if known is None or known not in manifest.outputs.values():
                known = choose(step.folder, manifest, fold, n_splits, step.criterion).sha256
            chosen[f"fold{fold}"] = known
        return infer_inputs(step.experiment, step.criterion, chosen, plan.types, hashes)
    predictions = member_hashes(plan.project, step.experiment)
    return ensemble_inputs(step.experiment, predictions, hashes)


def _inferred_weights(step: Step, fold: int) -> str | None:
    """Return the hash of the weights that an inference has used for a fold, if it is finished."""
    manifest = read_manifest(manifest_path(step))
    return None if manifest is None else manifest.inputs["snapshots"].get(f"fold{fold}")


def state_of_step(
    step: Step,
    plan: Plan,
    hashes: FileHashes,
    unfinished: Iterable[str],
    weights_may_be_gone: bool = False,
) -> StepState:
    """Return how far one step is.

    Args:
        step: The step.
        plan: Its plan.
        hashes: Hashes of files.
        unfinished: Labels of the steps that are not done.
        weights_may_be_gone: As for :func:`results_of`.
    """
    progress = read_progress(step)
    manifest = read_manifest(manifest_path(step))
    process = holder(manifest_path(step) if step.kind == "preprocess" else step.folder)
    # An inference holds the folds too; only a training says how far it is.
    if process and (not step.epochs or progress.get("process", {}).get("pid") == process["pid"]):
        return _running(step, process, progress)
    before = [label for label in step.needs if label in set(unfinished)]
    if before:
        more = f" and {len(before) - 1} more" if len(before) > 1 else ""
        if manifest is None:
            return StepState("to do", "", step.epochs)
        return StepState("stale", f"follows {before[0]}{more}", step.epochs)
    if manifest is None and not step.epochs:
        return StepState("to do")
    try:
        inputs = inputs_of(step, plan, hashes, weights_may_be_gone)
    except FoldsmithError as error:
        return StepState(
            "to do" if manifest is None else "stale", one_line(error)[:200], step.epochs
        )
    if step.kind in ("pretrain", "train"):
        assert step.experiment is not None
        longer = step.kind == "pretrain" and may_be_longer(step.experiment, plan.types)
        state = _training_state(step, plan.project, inputs, manifest, hashes, progress, longer)
        made = manifest is not None and not differences(manifest.inputs, inputs)
        if weights_may_be_gone and step.kind == "train" and made:
            return StepState("done")
        return state
    assert manifest is not None
    changed = differences(manifest.inputs, inputs)
    changed += [text for _, text in _changed(step, manifest, hashes)]
    return StepState("stale", "; ".join(changed)) if changed else StepState("done")


def _training_state(
    step: Step,
    project: ProjectFolder,
    inputs: Inputs,
    manifest: Manifest | None,
    hashes: FileHashes,
    progress: Any,
    more_epochs: bool,
) -> StepState:
    # The backbones of chosen epochs are the same whatever the probe says of them.
    unjudged = bool(step.wanted) and BACKBONE_OF_PROBE not in step.wanted
    compared = without_probe if unjudged else dict
    state, changed = state_of(step.folder, inputs, more_epochs, compared)
    if state == "done" and manifest is not None:
        gone = _unusable(step, project, manifest, hashes)
        if gone:
            return StepState("stale", gone, step.epochs)
        changed = [text for name, text in _changed(step, manifest, hashes) if is_record(name)]
        return StepState("to do", "; ".join(changed)) if changed else StepState("done")
    if state == "continue":
        epoch = int(progress.get("epoch", 0))
        return StepState("to do", f"continues at epoch {epoch + 1}", step.epochs - epoch)
    if changed:
        status: Status = "to do" if manifest is None else "stale"
        return StepState(status, "; ".join(changed), step.epochs)
    return StepState("to do", "", step.epochs)


def _unusable(step: Step, project: ProjectFolder, manifest: Manifest, hashes: FileHashes) -> str:
    """Return why the output of a finished training is of no use to later steps, if so."""
    changed = _changed(step, manifest, hashes)
    if step.kind == "pretrain":
        missing = [name for name in step.wanted if name not in manifest.outputs]
        texts = [text for name, text in changed if not is_record(name)]
        return "; ".join([*texts, *(f"{name} is missing" for name in missing)])
    # Of the snapshots those matter that are chosen: an inference deletes the others.
    texts = [t for name, t in changed if not is_record(name) and not name.endswith(".pth")]
    if texts:
        return "; ".join(texts)
    root, fold, n_splits = step.folder.parent, step.fold or 0, project.n_splits
    if step.criterion == "common":
        finished = [read_manifest(root / f"fold{k}" / MANIFEST) for k in range(n_splits)]
        if None in finished:
            return ""  # Which epoch it is will show when all folds are trained.
    try:
        chosen = choose(root, manifest, fold, n_splits, step.criterion)
    except (OutputError, OSError, ValueError, KeyError):
        return f"its snapshot by {step.criterion} is gone"
    return "" if hashes.of(chosen.source) == chosen.sha256 else f"{chosen.source.name} was changed"


def _changed(step: Step, manifest: Manifest, hashes: FileHashes) -> list[tuple[str, str]]:
    """Return name and state of each output of a step that is not what it wrote."""
    return list(changed_outputs(manifest_path(step).parent, manifest, hashes).items())


def states_of(plan: Plan, hashes: FileHashes) -> dict[str, StepState]:
    """Return label -> state of every step of a plan."""
    return _states(plan, hashes, weights_may_be_gone=False)


def results_of(plan: Plan, hashes: FileHashes) -> dict[str, StepState]:
    """Return label -> state of every step of a plan, for who wants to see what was found.

    As :func:`states_of`, but predictions are not out of date because somebody has deleted the
    weights that made them.
    """
    return _states(plan, hashes, weights_may_be_gone=True)


def _states(plan: Plan, hashes: FileHashes, weights_may_be_gone: bool) -> dict[str, StepState]:
    states: dict[str, StepState] = {}
    with one_look():
        for step in plan.steps:
            unfinished = [label for label, state in states.items() if state.status != "done"]
            states[step.label] = state_of_step(step, plan, hashes, unfinished, weights_may_be_gone)
    hashes.save()
    return states


def costs_as(step: Step, made: Manifest) -> bool:
    """Return whether what a step did takes as long per photo as what it would do today.

    Args:
        step: The step, as its files are today.
        made: Its manifest, finished or not.
    """
    config = made.inputs.get("config")
    if step.experiment is None or not isinstance(config, dict):
        return True
    today = flatten(json.loads(json.dumps(step.experiment.written_out().tree)))
    return _costly(config) == {key: v for key, v in _costly(today).items() if key in config}


def _costly(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of an experiment that decide how long a photo takes."""
    return {
        key: value
        for key, value in config.items()
        if (key.startswith(("model/", "dataset/", "loader/")) or key in _COSTLY)
        and not key.endswith(("num_workers", "pin_memory"))
        and not key.startswith("model/pretrained")
    }


def speeds_of(plan: Plan) -> Speeds:
    """Return what has been measured so far, from manifests and running trainings.

    A step that was measured with another model or image size was not measured.
    """
    speeds = Speeds()
    for step in plan.steps:
        manifest = read_manifest(manifest_path(step))
        begun = manifest or (read_manifest(step.folder / UNFINISHED) if step.epochs else None)
        if begun is not None and not costs_as(step, begun):
            continue
        measured = manifest.facts.get("epoch_s" if step.epochs else "wall_s") if manifest else None
        measured = read_progress(step).get("epoch_s", measured)
        if isinstance(measured, (int, float)):
            if step.epochs:
                speeds.epoch_s[step.name] = float(measured)
            else:
                speeds.step_s[step.label] = float(measured)
    return speeds


def read_progress(step: Step) -> dict[str, Any]:
    """Return how far a training says it is; empty if it says nothing."""
    try:
        content = json.loads((step.folder / PROGRESS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and step.epochs else {}


def _running(step: Step, process: dict[str, Any], progress: dict[str, Any]) -> StepState:
    by = f"process {process['pid']}"
    if not step.epochs:
        return StepState("running", by)
    epoch = int(progress.get("epoch", 0))
    speed = f", {progress['images_per_s']} images/s" if "images_per_s" in progress else ""
    why = f"epoch {min(epoch + 1, step.epochs)}/{step.epochs}{speed}, {by}"
    return StepState("running", why, step.epochs - epoch)
