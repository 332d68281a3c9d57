"""A predictor as a folder that needs neither the project nor its photos.

The folder is a project without data: ``project.yml``, the project's own Python, and of each
member the experiment file and its weights. ``predictor.json`` names the members and the blend.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from foldsmith import __version__
from foldsmith.atomic import copy_file, write_json, write_text
from foldsmith.blending.base import Goal
from foldsmith.blending.methods import restore_blend
from foldsmith.config import Experiment, Project
from foldsmith.config.check import named_files
from foldsmith.config.project import PROJECT_FILE
from foldsmith.config.yaml_io import dump_yaml
from foldsmith.errors import ConfigError, OutputError
from foldsmith.models.arrays import Arrays, part, prefixed, read_arrays, write_arrays
from foldsmith.models.feature_heads import FeatureHead
from foldsmith.models.runtime import random_state_kept
from foldsmith.stages.inputs import without_pretrained
from foldsmith.stages.member_models import MemberModels, parts_of
from foldsmith.stages.predictor import NamedBlend, Predictor
from foldsmith.stages.types import types_of
from foldsmith.tasks.metrics import project_metric

PREDICTOR_FILE = "predictor.json"
BLEND_FILE = "blend.safetensors"
_MEMBERS, _EXPERIMENT, _WEIGHTS = "members", "experiment.yml", "weights.safetensors"

# Of the form of the folder: an older foldsmith has to refuse what it does not know.
_FORMAT = 1

_README = """# {name}

Predicts photos as the run `{name}` of foldsmith {version} has predicted its test photos; the
training photos are not needed.

    pip install foldsmith
    foldsmith predict --run {folder} PHOTOS... -o predictions.csv

or, from Python:

    import foldsmith
    table = foldsmith.load("{folder}").predict(["photo.jpg"])

`predictor.json` names the members and the blend. Weights are safetensors, and nothing here is
code but what the project brought itself (`python` in `project.yml`).
"""


def write_predictor(predictor: Predictor, folder: Path) -> None:
    """Write all that a predictor needs into a folder, and make sure that it says the same there.

    Args:
        predictor: One of a finished run.
        folder: Where to; members of an earlier export in it are replaced.

    Raises:
        ConfigError: An experiment is made from further files, which cannot be taken along.
        OutputError: What was written predicts otherwise.
    """
    # First, so that a folder that is half written is not taken for whole.
    (folder / PREDICTOR_FILE).unlink(missing_ok=True)
    shutil.rmtree(folder / _MEMBERS, ignore_errors=True)
    experiments = [_self_contained(member) for member in predictor.models]
    project = experiments[0].project
    settings = project.settings.model_dump(mode="json") | {"data_dir": "."}
    write_text(folder / PROJECT_FILE, dump_yaml(settings))
    for name in project.settings.python:
        copy_file(project.path(name), folder / name)
    for member, experiment in zip(predictor.models, experiments, strict=True):
        root = folder / _MEMBERS / member.name
        write_text(root / _EXPERIMENT, experiment.dump())
        write_arrays(root / _WEIGHTS, _weights_of(member))
    (folder / BLEND_FILE).unlink(missing_ok=True)
    if predictor.fitted_blend is not None:
        write_arrays(folder / BLEND_FILE, predictor.fitted_blend.fitted.arrays())
    name = predictor.run.name
    write_text(
        folder / "README.md", _README.format(name=name, version=__version__, folder=folder.name)
    )
    content = {
        "format": _FORMAT,
        "foldsmith": __version__,
        "run": name,
        "blend": predictor.blend,
        "members": predictor.members,
    }
    written = _read(folder, content, None)
    _compare(predictor, written, folder)
    write_json(folder / PREDICTOR_FILE, content)


def read_predictor(folder: Path, device: str | None) -> Predictor:
    """Read what :func:`write_predictor` has written.

    Args:
        folder: The folder.
        device: Where to compute, as in ``globals/device``; None as each experiment says.

    Raises:
        OutputError: A file is missing or damaged, or the folder is of a newer foldsmith.
        ConfigError: An experiment, or the project's own Python, is wrong.
    """
    path = folder / PREDICTOR_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known = content["format"] == _FORMAT
        names = [*content["members"], content["blend"], content["foldsmith"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise OutputError(f"{path}: is damaged; export the run again") from None
    if not known:
        raise OutputError(
            f"{path}: was written by foldsmith {names[-1]}, in a form that this one "
            f"({__version__}) does not know; install that version"
        )
    return _read(folder, content, device)


def _read(folder: Path, content: dict[str, Any], device: str | None) -> Predictor:
    project = Project.open(folder)
    with random_state_kept():
        members = [_read_member(project, name, device) for name in content["members"]]
    blend = None
    if content["blend"] is not None:
        goal = Goal(project_metric(project), project.target_range, tuple(project.class_values))
        fitted = restore_blend(read_arrays(folder / BLEND_FILE), goal)
        blend = NamedBlend(content["blend"], goal, fitted)
    return Predictor(folder, members, blend)


def _read_member(project: Project, name: str, device: str | None) -> MemberModels:
    root = project.path(_MEMBERS) / name
    experiment = Experiment.load(project, root / _EXPERIMENT)
    if device is not None:
        experiment = experiment.with_values({"globals/device": device})
    path = root / _WEIGHTS
    arrays = read_arrays(path)
    if experiment.globals.task != "frozen-features":
        folds = range(project.n_splits)
        models = [_load(experiment, part(arrays, f"fold{fold}"), path, fold) for fold in folds]
        return MemberModels(name, experiment, models)
    head: FeatureHead = parts_of(experiment)["head"]
    heads = [head.restore(part(arrays, f"head{fold}")) for fold in range(project.n_splits)]
    backbone = _load(experiment, part(arrays, "backbone"), path, None)
    return MemberModels(name, experiment, [backbone], heads)


def _load(experiment: Experiment, arrays: Arrays, path: Path, fold: int | None) -> nn.Module:
    model: nn.Module = parts_of(experiment, fold)["model"]
    try:
        model.load_state_dict({key: torch.from_numpy(value) for key, value in arrays.items()})
    except RuntimeError:
        raise OutputError(
            f"{path}: these are not the weights of the model in {experiment.file}; export the "
            "run again"
        ) from None
    return model


def _weights_of(member: MemberModels) -> Arrays:
    found: Arrays = {}
    names = ["backbone"] if member.heads else [f"fold{k}" for k in range(len(member.models))]
    for name, model in zip(names, member.models, strict=True):
        state = {key: value.detach().cpu().numpy() for key, value in model.state_dict().items()}
        found |= prefixed(name, state)
    for fold, head in enumerate(member.heads):
        found |= prefixed(f"head{fold}", head.arrays())
    return found


def _self_contained(member: MemberModels) -> Experiment:
    """Return a member's experiment without what it would read from files of the project."""
    experiment = without_pretrained(member.experiment)
    parts = parts_of(experiment)
    experiment = experiment.with_values(
        # The statistics of the photos as numbers.
        {path: parts[path] for path in _statistics(experiment.tree["dataset"], "dataset")}
    )
    types = types_of(experiment.project)
    for path, file in named_files(experiment.tree, types).items():
        raise ConfigError(
            f"{experiment.file}: {path}: is made from the file {file}, which an export does not "
            "take along"
        )
    return experiment


def _statistics(node: Any, path: str) -> Iterator[str]:
    """Yield the paths of all statistics of the project's photos."""
    if isinstance(node, dict):
        if node.get("type") == "ChannelStatistics":
            yield path
        children = list(node.items())
    else:
        children = list(enumerate(node)) if isinstance(node, list) else []
    for key, child in children:
        yield from _statistics(child, f"{path}/{key}")


def _compare(predictor: Predictor, written: Predictor, folder: Path) -> None:
    """Make sure that two predictors say the same of two made-up images."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (height, 320, 3), np.uint8) for height in (240, 400)]
    tables = [one.predict(images)[["prediction", "spread"]] for one in (predictor, written)]
    if not np.allclose(tables[0], tables[1], rtol=0, atol=1e-5):
        raise OutputError(
            f"{folder}: what was written predicts {tables[1].to_numpy().tolist()} where the run "
            f"predicts {tables[0].to_numpy().tolist()}; the project's own Python may read files "
            "that were not taken along"
        )
