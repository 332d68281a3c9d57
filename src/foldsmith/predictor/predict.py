"""Predictions for new images, by a finished ensemble or by a single experiment."""

import importlib.util
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from foldsmith.blending.methods import restore_blend
from foldsmith.config import Checkpoint, EnsembleSettings
from foldsmith.data.loose_images import find_images
from foldsmith.errors import ConfigError, OutputError
from foldsmith.models.fitted_arrays import part, read_arrays
from foldsmith.predictor.files import PREDICTOR_FILE, read_predictor
from foldsmith.predictor.in_form import in_form_of
from foldsmith.predictor.member_models import read_member
from foldsmith.predictor.predictor import NamedBlend, Predictor
from foldsmith.project import ProjectFolder
from foldsmith.steps.checkpoint_choice import checkpoint_of
from foldsmith.steps.ensemble import BLENDS
from foldsmith.steps.kinds.registry import kind_of
from foldsmith.steps.manifest import MANIFEST, Manifest, read_manifest
from foldsmith.steps.members import goal_of, member_hashes
from foldsmith.steps.output_folder import shown
from foldsmith.steps.run_records import RESOLVED_CONFIG, open_run, read_resolved
from foldsmith.utils.atomic import (
    recover_folder,
    remove_leftovers_of,
    replacing,
    write_csv,
    write_json,
)
from foldsmith.utils.formatting import counted
from foldsmith.utils.hashing import FileHashes
from foldsmith.utils.suggest import did_you_mean

logger = logging.getLogger(__name__)

FORMATS = (".csv", ".json", ".parquet")


def load(
    run: Path | str,
    *,
    blend: str | None = None,
    checkpoint: Checkpoint | None = None,
    device: str | None = None,
    project: Path | str | None = None,
    trust: bool = False,
) -> Predictor:
    """Return a predictor of new images: the models and the blend of a finished run.

    Args:
        run: Output folder of an ensemble, or of one experiment (a fine-tuning after ``infer``,
            or frozen features), whose folds' models are averaged; or what ``export`` has made
            of one.
        blend: Blend of the ensemble; the one that it recommends if None.
        checkpoint: Which snapshots of a single experiment, if it was inferred by several.
        device: Where to compute, as in ``globals/device``; None for the device of each
            experiment.
        project: The project folder; ``run`` is relative to it. None takes the one that
            the run lies in.
        trust: Run the Python that the project or export brings, if it does. An export needs
            this each time; a project until its Python changes only once.

    Raises:
        ConfigError: The blend or checkpoint does not exist, an experiment has errors, or Python of
            the project was not accepted.
        OutputError: The folder holds no finished run, a file that it needs is missing, or
            something is not as it was when the run predicted the test images.
    """
    exported = Path(run) if project is None else Path(project) / run
    recover_folder(exported)
    if (exported / PREDICTOR_FILE).is_file():
        if blend is not None or checkpoint is not None:
            raise ConfigError(
                f"{exported}: is an export, which was made of one blend and one checkpoint; leave "
                "both out"
            )
        return read_predictor(exported, device, trust)
    opened, root = open_run(Path(run), project, trust)
    experiment = read_resolved(opened, root)
    kind, task = kind_of(experiment), experiment.globals.task
    if kind.predicts:
        if blend is not None:
            raise ConfigError(f"{root}: is a single experiment; it has no blend {blend!r}")
        chosen = checkpoint_of(root, task, checkpoint)
        return Predictor(root, [read_member(opened, root, chosen, device)], None)
    if not kind.gathers:
        raise OutputError(f"{root}: holds a {task} run, which predicts nothing")
    if checkpoint is not None:
        raise ConfigError(f"{root}: is an ensemble, whose file says which snapshots are taken")
    settings = EnsembleSettings.model_validate(experiment.tree["ensemble"])
    manifest = read_manifest(root / MANIFEST)
    if manifest is None:
        raise OutputError(f"{root / MANIFEST}: no such file; run 'foldsmith ensemble' first")
    predictions = member_hashes(opened, experiment)
    name = str(manifest.facts["submit"]) if blend is None else blend
    chosen_blend = _read_blend(opened, root, manifest, predictions, name)
    folders, chosen_blend = _members_with_a_say(settings.experiments, chosen_blend)
    members = [read_member(opened, folder, settings.checkpoint, device) for folder in folders]
    return Predictor(root, members, chosen_blend)


def _members_with_a_say(
    folders: Sequence[str], blend: NamedBlend
) -> tuple[Sequence[str], NamedBlend]:
    """Return the members whose predictions a blend uses, and the blend of these alone.

    Models of the others are not read: they would cost time and memory, and change nothing.
    """
    used = blend.fitted.uses(len(folders))
    # Trees have their columns at fixed places, probabilities of all members among them.
    if blend.with_facts or used.all() or not used.any():
        return folders, blend
    kept = [folder for folder, has_a_say in zip(folders, used, strict=True) if has_a_say]
    return kept, replace(blend, fitted=blend.fitted.only(used))


def predict(
    run: Path | str,
    images: Iterable[str | Path],
    output: Path | None = None,
    *,
    sample: Path | None = None,
    blend: str | None = None,
    checkpoint: Checkpoint | None = None,
    skip_bad: bool = False,
    device: str | None = None,
    project: Path | str | None = None,
    trust: bool = False,
) -> pd.DataFrame:
    """Predict images, and write the predictions into a file.

    Args:
        run: As for :func:`load`.
        images: Files, folders (with all below them) and patterns such as ``new/*.jpg``.
        output: A .csv, .json or .parquet file, which is replaced; None writes none.
        sample: Sample submission whose form the table gets; its ids are the images' file names.
        blend: As for :func:`load`.
        checkpoint: As for :func:`load`.
        skip_bad: No prediction for an image that cannot be read, instead of an error.
        device: As for :func:`load`.
        project: As for :func:`load`.
        trust: As for :func:`load`.

    Returns:
        As :meth:`Predictor.predict`, or in the form of the sample.

    Raises:
        ConfigError: As :func:`load`, or the file is of another kind.
        OutputError: As :func:`load`.
        DataError: A folder or pattern holds no image, or images cannot be read; nothing is
            written then.
    """
    if output is not None:
        _check_format(output)
    found = find_images(images)
    predictor = load(
        run, blend=blend, checkpoint=checkpoint, device=device, project=project, trust=trust
    )
    table, problems = predictor.predict_all(found, skip_bad)
    for problem in problems.values():
        logger.warning(f"no prediction: {problem}")
    if sample is not None:
        opened = predictor.models[0].experiment.project
        table = in_form_of(sample, opened, table, problems)
    if output is not None:
        _write(output, table)
        unread = f", {len(problems)} of them without a prediction" if problems else ""
        how = f"{predictor.blend} of " if predictor.blend else ""
        logger.info(
            f"wrote {shown(output)} ({counted(len(found), 'image')}{unread}; by {how}"
            f"{', '.join(predictor.members)})"
        )
    return table


def _read_blend(
    project: ProjectFolder,
    folder: Path,
    manifest: Manifest,
    predictions: Mapping[str, str],
    name: str,
) -> NamedBlend:
    """Return a blend of an ensemble.

    Args:
        project: The project.
        folder: The ensemble's output folder.
        manifest: The ensemble's.
        predictions: Hash of each member's predictions today.
        name: Name of the blend.
    """
    again = f"'foldsmith ensemble -cfg {shown(folder / RESOLVED_CONFIG)} -f' blends again"
    if manifest.inputs["predictions"] != predictions:
        raise OutputError(
            f"{folder}: has blended other predictions than those of its experiments now; {again}"
        )
    path, hashes = folder / BLENDS, FileHashes(project.hash_store)
    digest = hashes.of(path)
    if digest != manifest.outputs.get(path.name):
        state = "no such file" if digest == "missing" else "was changed"
        raise OutputError(f"{path}: {state}; {again}")
    arrays = read_arrays(path)
    names = dict.fromkeys(key.split(".")[0] for key in arrays)
    if name not in names:
        raise ConfigError(f"{folder}: has no blend {name!r}{did_you_mean(name, names)}")
    goal = goal_of(project)
    return NamedBlend(name, goal, restore_blend(part(arrays, name), goal))


def _check_format(path: Path) -> None:
    """Make sure, before the work, that a table can be written into a file of this name.

    Raises:
        ConfigError: It is of no known kind, or a library is missing.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"{path}: must end with {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    engines = ("pyarrow", "fastparquet")
    if path.suffix.lower() == ".parquet" and not any(map(importlib.util.find_spec, engines)):
        raise ConfigError(f"{path}: Parquet needs pyarrow; run 'pip install pyarrow', or use .csv")


def _write(path: Path, table: pd.DataFrame) -> None:
    kind = path.suffix.lower()
    remove_leftovers_of(path)
    if kind == ".csv":
        write_csv(path, table)
    elif kind == ".json":
        # JSON has no NaN.
        plain = table.astype(object).where(table.notna(), None)
        write_json(path, plain.to_dict(orient="records"))
    else:
        with replacing(path) as temporary:
            table.to_parquet(temporary, index=False)
