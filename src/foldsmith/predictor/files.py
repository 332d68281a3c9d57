"""A predictor as a folder that needs neither the project nor its images.

The folder is a project without data: ``project.yml``, the project's own Python, and of each
member the experiment file and its weights. ``predictor.json`` names the members and the blend.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foldsmith import __version__
from foldsmith.blending.methods import restore_blend
from foldsmith.config import Experiment
from foldsmith.config.named_files import named_files
from foldsmith.data.loose_images import ImagesAtHand
from foldsmith.errors import ConfigError, OutputError
from foldsmith.models.feature_heads import FeatureHead
from foldsmith.models.fitted_arrays import Arrays, part, prefixed, read_arrays, write_arrays
from foldsmith.models.runtime import create_runtime, random_state_kept
from foldsmith.predictor.agreement import Agreement, agreement, made_up_images, sample_images
from foldsmith.predictor.export_folder import exported_to
from foldsmith.predictor.member_models import MemberModels, parts_of
from foldsmith.predictor.onnx_model import OnnxModel, check_onnx, write_onnx
from foldsmith.predictor.predictor import NamedBlend, Predictor
from foldsmith.project import ProjectFolder
from foldsmith.project.own_files import DATA_FILES, files_behind
from foldsmith.project.project_file import PROJECT_FILE
from foldsmith.steps.config_used import tree_read
from foldsmith.steps.fold_heads import HeadOfFold
from foldsmith.steps.inputs.predictions import TRAINING_ONLY
from foldsmith.steps.inputs.shared import without_pretrained
from foldsmith.steps.kinds.registry import kind_of
from foldsmith.steps.members import goal_of
from foldsmith.targets.scale_buffer import TARGET_SCALE, take_scale
from foldsmith.utils.atomic import copy_file, write_json, write_text
from foldsmith.utils.hashing import hash_file, hash_value
from foldsmith.utils.yaml_io import dump_yaml

PREDICTOR_FILE = "predictor.json"
BLEND_FILE = "blend.safetensors"
# Key of the checksum of predictor.json itself.
_CHECKSUM = "sha256"
_README_FILE = "README.md"
_MEMBERS, _EXPERIMENT, _WEIGHTS = "members", "experiment.yml", "weights.safetensors"

# How far predictions of an export may be off, as a share of the target's range or of a probability.
# Each network in ONNX is within 1e-4 of its weights in float32; trees behind networks may jump.
_LIMIT, _ONNX_LIMIT, _TREES_LIMIT = 1e-5, 1e-3, 0.02

# Version of the folder's format: an older foldsmith must refuse a newer one.
_FORMAT = 2

_README = """# {name}

Predicts images as the run `{name}` of foldsmith {version} has predicted its test images; the
training images are not needed. Install foldsmith {version} first, in its folder:

    pip install {extra}
    foldsmith predict --run THIS_FOLDER IMAGES... -o predictions.csv{flag}

or, from Python:

    import foldsmith
    table = foldsmith.load("THIS_FOLDER"{argument}).predict(["image.jpg"])

`predictor.json` names the members, the blend and the checksum of every file. {networks}. {code}
"""

_NO_CODE = "Nothing here is code."
_CODE = """The project's own
Python is in `python/`: read it before you accept it with `--trust-python` or `trust=True`."""


def write_predictor(predictor: Predictor, folder: Path, onnx: bool = False) -> str:
    """Write a predictor into a folder, and check that it predicts the same from there.

    Args:
        predictor: One of a finished run.
        folder: Output folder; its contents are replaced at the end.
        onnx: Networks as ONNX files, which ONNX Runtime runs, instead of weights for torch.

    Returns:
        How far its predictions of a few images are from the run's, for people. ONNX files compute
        in float32, so they are compared with the run's weights in float32; the text adds how far
        the run's own precision, such as bf16, is from float32.

    Raises:
        ConfigError: An experiment is made from further files, which cannot be taken along; or
            ONNX is not installed, or knows no such model.
        OutputError: The written predictor predicts other values.
    """
    if onnx:
        check_onnx()
    experiments = [_self_contained(member) for member in predictor.models]
    # Beside it, so that an earlier export is there until this one is whole.
    with exported_to(folder) as begun:
        content = _sealed(begun, _write_all(predictor, experiments, begun, onnx))
        written = _read(begun, content, None, trust=True)
        images, what = sample_images(predictor.models[0].experiment.project)
        exact = _in_float32(predictor) if onnx else None
        found = _compared(exact or predictor, written, images, folder, _limit(predictor, onnx))
        text = f"its predictions of {what} are within {found.text} of the run's"
        if exact is not None:
            rounding = agreement(predictor, exact, images)
            text += f" in float32; the run's own rounding changes them by {rounding.text}"
        write_json(begun / PREDICTOR_FILE, content)
    return text


def _write_all(
    predictor: Predictor, experiments: list[Experiment], folder: Path, onnx: bool
) -> dict[str, Any]:
    """Write everything but the file that names it all, whose content is returned."""
    project = experiments[0].project
    # By number: they may come from anywhere, under the same names.
    python = {f"python/{k}/{Path(p).name}": p for k, p in enumerate(project.settings.python)}
    settings = project.settings.model_dump(mode="json")
    write_text(
        folder / PROJECT_FILE, dump_yaml(settings | {"data_dir": ".", "python": list(python)})
    )
    for kept, source in python.items():
        copy_file(project.path(source), folder / kept)
    names: list[str] = []
    for member, experiment in zip(predictor.models, experiments, strict=True):
        # Two may have the same name, in different folders.
        names.append(f"{member.name}_{len(names)}" if member.name in names else member.name)
        root = folder / _MEMBERS / names[-1]
        write_text(root / _EXPERIMENT, experiment.dump())
        if onnx:
            _write_networks(member, root)
        arrays = _arrays_of(member, with_networks=not onnx)
        if arrays:
            write_arrays(root / _WEIGHTS, arrays)
    if predictor.fitted_blend is not None:
        write_arrays(folder / BLEND_FILE, predictor.fitted_blend.fitted.arrays())
    name = predictor.run.name
    readme = _README.format(
        name=name,
        version=__version__,
        extra="'.[onnx]'" if onnx else ".",
        networks="Networks are ONNX files" if onnx else "Weights are safetensors",
        flag=" --trust-python" if python else "",
        argument=", trust=True" if python else "",
        code=_CODE if python else _NO_CODE,
    )
    write_text(folder / _README_FILE, readme)
    return {
        "format": _FORMAT,
        "foldsmith": __version__,
        "run": name,
        "blend": predictor.blend,
        "members": names,
        "onnx": onnx,
    }


def _sealed(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of the file that names it all, with the checksums of all others."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    # Files for people change no prediction.
    files = {
        path.relative_to(folder).as_posix(): hash_file(path)
        for path in paths
        if path.name != _README_FILE
    }
    return _with_checksum(content | {"files": files})


def _with_checksum(content: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in content.items() if key != _CHECKSUM}
    return rest | {_CHECKSUM: hash_value(rest)}


def _check_files(folder: Path, content: dict[str, Any]) -> None:
    """Make sure that an export is as it was written.

    Raises:
        OutputError: A file is missing or was changed.
    """
    again = "put it back, or export the run again"
    for name, digest in content["files"].items():
        path = folder / name
        if not path.is_file():
            raise OutputError(f"{path}: no such file; {again}")
        if hash_file(path) != digest:
            raise OutputError(f"{path}: was changed since the export was written; {again}")


def read_predictor(folder: Path, device: str | None, trust: bool) -> Predictor:
    """Read a folder written by :func:`write_predictor`.

    Args:
        folder: The folder.
        device: Where to compute, as in ``globals/device``; None for the device of each
            experiment.
        trust: Run the Python in the folder, if there is any.

    Raises:
        OutputError: A file is missing or damaged, or the folder is of a newer foldsmith.
        ConfigError: An experiment, or the project's own Python, is wrong; or there is such
            Python and no ``trust``.
    """
    path = folder / PREDICTOR_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known = content["format"] == _FORMAT
        names = [*content["members"], content["blend"], content["foldsmith"]]
        whole = not known or _with_checksum(content) == content
    except (OSError, ValueError, KeyError, TypeError):
        raise OutputError(f"{path}: is damaged; export the run again") from None
    if not known:
        raise OutputError(
            f"{path}: was written by foldsmith {names[-1]}, in a form that this one "
            f"({__version__}) does not know; install that version"
        )
    if not whole:
        raise OutputError(f"{path}: is damaged: its checksum does not match; export the run again")
    _check_files(folder, content)
    return _read(folder, content, device, trust)


def _read(folder: Path, content: dict[str, Any], device: str | None, trust: bool) -> Predictor:
    # An export is made to be passed on: each use says that its Python may run.
    project = ProjectFolder.open(folder, trust=trust, remembered=False)
    with random_state_kept():
        members = [
            _read_member(project, name, device, content["onnx"]) for name in content["members"]
        ]
    blend = None
    if content["blend"] is not None:
        goal = goal_of(project)
        fitted = restore_blend(read_arrays(folder / BLEND_FILE), goal)
        blend = NamedBlend(content["blend"], goal, fitted)
    return Predictor(folder, members, blend)


def _read_member(
    project: ProjectFolder, name: str, device: str | None, as_onnx: bool
) -> MemberModels:
    root = project.path(_MEMBERS) / name
    experiment = Experiment.load(project, root / _EXPERIMENT)
    if device is not None:
        experiment = experiment.with_values({"globals/device": device})
    path, arrays = root / _WEIGHTS, {}
    frozen = kind_of(experiment).frozen
    if frozen or not as_onnx or path.is_file():
        arrays = read_arrays(path)
    folds = range(project.n_splits)
    models: list[nn.Module] = []
    for network, fold in {"backbone": None}.items() if frozen else ((f"fold{k}", k) for k in folds):
        if as_onnx:
            model = OnnxModel(root / f"{network}.onnx")
            kept = part(arrays, network).get(TARGET_SCALE)
            if kept is not None:
                model.register_buffer(TARGET_SCALE, torch.from_numpy(kept))
            models.append(model)
        else:
            models.append(_load(experiment, part(arrays, network), path, fold))
    heads = []
    if frozen:
        head: FeatureHead = parts_of(experiment)["head"]
        heads = [HeadOfFold.restore(head, part(arrays, f"head{fold}")) for fold in folds]
    return MemberModels(name, experiment, models, heads)


def _load(experiment: Experiment, arrays: Arrays, path: Path, fold: int | None) -> nn.Module:
    model: nn.Module = parts_of(experiment, fold)["model"]
    state = {key: torch.from_numpy(value) for key, value in arrays.items()}
    take_scale(model, state)
    try:
        model.load_state_dict(state)
    except RuntimeError:
        raise OutputError(
            f"{path}: these are not the weights of the model in {experiment.file}; export the "
            "run again"
        ) from None
    return model


def _networks_of(member: MemberModels) -> dict[str, nn.Module]:
    """Return the networks of a member by name: those of the folds, or the backbone they share."""
    if member.heads:
        return {"backbone": member.models[0]}
    return {f"fold{fold}": model for fold, model in enumerate(member.models)}


def _arrays_of(member: MemberModels, with_networks: bool) -> Arrays:
    found: Arrays = {}
    for name, model in _networks_of(member).items():
        state = {key: value.detach().cpu().numpy() for key, value in model.state_dict().items()}
        # The target scale is not a part of the network, and so not of an ONNX file.
        kept = {key: value for key, value in state.items() if with_networks or key == TARGET_SCALE}
        found |= prefixed(name, kept)
    for fold, head in enumerate(member.heads):
        found |= prefixed(f"head{fold}", head.arrays())
    return found


def _write_networks(member: MemberModels, root: Path) -> None:
    waiting = ImagesAtHand([member.head])
    for image in made_up_images():
        waiting.add(waiting.versions(image))
    images = member.images_of(waiting)
    for name, model in _networks_of(member).items():
        write_onnx(model, images, root / f"{name}.onnx")


def _self_contained(member: MemberModels) -> Experiment:
    """Return a member's experiment without references to files of the project."""
    experiment = without_pretrained(member.experiment)
    parts = parts_of(experiment)
    experiment = experiment.with_values(
        # The statistics of the images as numbers.
        {path: parts[path] for path in _statistics(experiment.tree["dataset"], "dataset")}
    )
    own_files = experiment.project.own_files
    predicts = tree_read(experiment.wired, TRAINING_ONLY)
    for own in files_behind(own_files, predicts):
        for file in own.data:
            raise ConfigError(
                f"{own.path}: {DATA_FILES}: reads {file}, which an export does not take along"
            )
    for path, file in named_files(experiment.tree).items():
        raise ConfigError(
            f"{experiment.file}: {path}: is made from the file {file}, which an export does not "
            "take along"
        )
    return experiment


def _statistics(node: Any, path: str) -> Iterator[str]:
    """Yield the paths of all statistics of the project's images."""
    if isinstance(node, dict):
        if node.get("type") == "ChannelStatistics":
            yield path
        children = list(node.items())
    else:
        children = list(enumerate(node)) if isinstance(node, list) else []
    for key, child in children:
        yield from _statistics(child, f"{path}/{key}")


def _compared(
    wanted: Predictor, written: Predictor, images: Sequence[Any], folder: Path, limit: float
) -> Agreement:
    """Compare the written predictor with the original.

    Raises:
        OutputError: A prediction is farther off than the limit, a share of the target's range or
            of a probability.
    """
    found = agreement(wanted, written, images)
    if not found.share <= limit:
        raise OutputError(
            f"{folder}: not written, since its predictions would be off by {found.text}, more "
            f"than {limit:.0e} of the target's range; a network cannot be written exactly, or "
            "the project's own Python reads files that were not taken along"
        )
    return found


def _limit(predictor: Predictor, onnx: bool) -> float:
    """Return the tolerance of the written predictor's predictions."""
    if not onnx:
        return _LIMIT
    blend = predictor.fitted_blend
    trees = (blend is not None and blend.with_facts) or any(m.heads for m in predictor.models)
    return _TREES_LIMIT if trees else _ONNX_LIMIT


def _in_float32(predictor: Predictor) -> Predictor | None:
    """Return a predictor with the same weights that computes in float32; None if it does so."""
    runtimes = [create_runtime(each.experiment.globals) for each in predictor.models]
    if all(runtime.dtype is None for runtime in runtimes):
        return None
    exact = [
        MemberModels(
            each.name,
            each.experiment.with_values({"globals/enable_amp": False}),
            each.models,
            each.heads,
        )
        for each in predictor.models
    ]
    return Predictor(predictor.run, exact, predictor.fitted_blend)
