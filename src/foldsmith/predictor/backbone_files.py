"""The backbone of a pretraining as files that timm loads: safetensors and a config."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foldsmith.config import Components, Experiment
from foldsmith.config.backbones import picked_backbone
from foldsmith.data.image_table import STATS_BY_DATA
from foldsmith.data.transforms.normalize import Normalize
from foldsmith.errors import ConfigError, OutputError
from foldsmith.models.backbone import create_backbone, num_features
from foldsmith.models.snapshots import load_weights
from foldsmith.predictor.export_folder import exported_to
from foldsmith.steps.manifest import MANIFEST, Manifest, read_manifest
from foldsmith.steps.output_folder import shown
from foldsmith.steps.registry import types_of
from foldsmith.utils.atomic import replacing, write_json
from foldsmith.utils.hashing import FileHashes

logger = logging.getLogger(__name__)

# The names that timm looks for in a folder.
WEIGHTS, CONFIG = "model.safetensors", "config.json"


def write_backbone(experiment: Experiment, root: Path, target: Path, pick: str | int) -> None:
    """Write a pretrained backbone for use without foldsmith.

    ``model.safetensors`` is what ``timm.create_model(name, num_classes=0, checkpoint_path=...)``
    takes. ``config.json`` holds the model's name and arguments and the normalisation of its
    images, so that ``timm.create_model("local-dir:FOLDER", pretrained=True, num_classes=...)``
    needs nothing else.

    Args:
        experiment: The pretraining.
        root: Its output folder.
        target: Where to; made if need be.
        pick: ``last``, ``best_probe`` or an epoch.

    Raises:
        ConfigError: The model is none of timm's, or the run keeps no such backbone.
        OutputError: The pretraining is not finished, or a file is missing or was changed.
    """
    manifest = read_manifest(root / MANIFEST)
    if manifest is None:
        raise OutputError(f"{root}: is not finished; run 'foldsmith pretrain --resume' first")
    epoch = int(pick) if str(pick).isdigit() else pick
    wanted = {"from": root.name, "pick": epoch}
    source = (
        root / Path(picked_backbone(wanted, root.name, experiment.tree, experiment.globals)).name
    )
    _check_files(experiment, source, manifest)
    project = experiment.project
    types = types_of(project)
    parts = experiment.build(types)
    config, backbone = _model_of(experiment, parts)
    load_weights(backbone, source)
    config["pretrained_cfg"] |= _images_of(experiment.tree["dataset"], parts)

    from safetensors.torch import save_file

    tensors = {name: value.contiguous() for name, value in backbone.state_dict().items()}
    with exported_to(target) as begun:
        with replacing(begun / WEIGHTS) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
        write_json(begun / CONFIG, config)
    logger.info(
        f"wrote {shown(target / WEIGHTS)} ({config['architecture']}, {source.name}), {CONFIG}"
    )


def _check_files(experiment: Experiment, source: Path, manifest: Manifest) -> None:
    """Make sure that the backbone, and the statistics of its images, are those of the run."""
    project = experiment.project
    hashes = FileHashes(project.hash_store)
    statistics = project.data_dir / STATS_BY_DATA
    made = {source: manifest.outputs.get(source.name)}
    if STATS_BY_DATA in manifest.inputs["files"]:
        made[statistics] = manifest.inputs["files"][STATS_BY_DATA]
    for path, digest in made.items():
        found = hashes.of(path)
        if found != digest:
            state = "no such file" if found == "missing" else "differs from the run's file"
            raise OutputError(f"{path}: {state}; put it back, or run the pretraining again")


def _model_of(experiment: Experiment, parts: Components) -> tuple[dict[str, Any], Any]:
    """Return timm's config of the backbone, and the backbone with random weights."""
    node = experiment.tree["model"].get("backbone")
    if not isinstance(node, dict) or node.get("type") != "Backbone":
        raise ConfigError(
            f"{experiment.file}: model/backbone is not of the type Backbone, so that timm would "
            "not know it"
        )
    # Stochastic depth is a matter of training.
    names = [name for name in node if name not in ("type", "drop_path_rate")]
    arguments = {name: parts[f"model/backbone/{name}"] for name in names}
    backbone = create_backbone(**arguments)
    sized = {"img_size": arguments["img_size"]} if arguments.get("img_size") else {}
    known = getattr(backbone, "pretrained_cfg", {})
    kept = {name: known[name] for name in ("first_conv", "classifier") if known.get(name)}
    config = {
        "architecture": arguments["model_name"],
        "num_classes": 0,
        "num_features": num_features(backbone),
        "model_args": dict(arguments.get("options") or {}) | sized,
        # These are timm's own names, whatever its pretrained models were converted from.
        "pretrained_cfg": {"num_classes": 0, "custom_load": False, **kept},
    }
    return config, backbone


def _images_of(section: Mapping[str, Any], parts: Components) -> dict[str, Any]:
    """Return the images' size and normalisation, as far as the section ``dataset`` says."""
    found: dict[str, Any] = {}
    if "img_size" in section:
        size = int(parts["dataset/img_size"])
        found["input_size"] = [3, size, size]
    train = section.get("train")
    steps = parts["dataset/train/transforms"] if train and "transforms" in train else []
    if steps and isinstance(steps[-1], Normalize):
        found |= {"mean": list(steps[-1].mean), "std": list(steps[-1].std)}
    return found
