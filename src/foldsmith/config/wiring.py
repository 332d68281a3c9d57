"""Arguments that components get from the experiment unless the file gives them.

``{type: AdamW, lr: 1.0e-3}`` trains the parameters of ``model``, and ``{type: Normalize}`` takes
the mean and standard deviation of the section ``dataset``. :data:`WIRING` is the list for the
types of this package. A type of a project declares its own with ``customize_type`` of
pytorch-pfn-extras, as in ``@customize_type(seed="/globals/seed")``.

Checks, builds and fingerprints read the experiment with these arguments written out, so an
argument that an experiment gives itself and the same one that it leaves out are equal.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from foldsmith.config.named_items import holds_names, in_order
from foldsmith.config.references import Key, is_reference, parse_reference
from foldsmith.targets.metrics import METRICS, METRICS_OF_LABELS, METRICS_OF_NUMBERS

# The objects that a step puts beside the file's own sections, as in @/project.n_classes.
CONTEXT: Final = ("project", "images", "runtime", "task")

# Where pytorch-pfn-extras' customize_type keeps its declarations.
_DECLARED = "_custom_default_kwargs"

_SQUARE = {"height": "@/dataset/img_size", "width": "@/dataset/img_size"}
_MODEL = {"model": "@/model"}
_PARAMETERS = {"params": {"type": "trainable_parameters"}}
_OPTIMIZER = {"optimizer": "@/optimizer"}
_MAX_EPOCH = {"max_epoch": "@/globals/max_epoch"}
_IMAGES = {"project": "@/project", "images": "@/images"}
_PROJECT = {"project": "@/project"}
_FOLDER = {"folder": "@/project.folder"}

# Type -> argument -> value. References to sections that an experiment lacks are left out.
WIRING: Final[Mapping[str, Mapping[str, Any]]] = {
    # Models
    "ImageModel": {
        "dims_head": [None, "@/task.n_outputs"],
        "freeze_backbone": "@/globals/freeze_backbone",
        **_FOLDER,
    },
    "PretrainedBackbone": _FOLDER,
    "ModelEma": {**_MODEL, "decay": "@/globals/ema_decay"},
    "LogisticHead": {"class_values": "@/project.class_values"},
    "KernelHead": {"class_values": "@/project.class_values"},
    # Data
    "ChannelStatistics": _PROJECT,
    "LabelledImages": {
        **_IMAGES,
        "meta_file": "@/globals/meta_file",
        "val_fold": "@/globals/val_fold",
        "seed": "@/globals/seed",
    },
    "TestImages": _IMAGES,
    "AllImages": {**_IMAGES, "seed": "@/globals/seed"},
    "ProbeImages": {**_IMAGES, "meta_file": "@/globals/meta_file"},
    "ImageLoader": {"device": "@/runtime.device", "seed": "@/globals/seed"},
    # Transforms
    "LongestMaxSize": {"max_size": "@/dataset/img_size"},
    "PadIfNeeded": {"min_height": "@/dataset/img_size", "min_width": "@/dataset/img_size"},
    **dict.fromkeys(("CenterCrop", "RandomCrop", "RandomResizedCrop", "Resize"), _SQUARE),
    "Normalize": {"mean": "@/dataset/ch_mean_norm", "std": "@/dataset/ch_std_norm"},
    # Optimization
    **dict.fromkeys(("SGD", "Adam", "AdamW", "NAdam", "RAdam", "RMSprop"), _PARAMETERS),
    **dict.fromkeys(("trainable_parameters", "parameter_groups", "layer_decay_groups"), _MODEL),
    **dict.fromkeys(
        ("OneCycleLR", "CosineAnnealingLR", "LinearLR", "StepLR", "MultiStepLR"), _OPTIMIZER
    ),
    "WarmupCosine": {**_OPTIMIZER, "total_steps": {"type": "optimizer_steps"}},
    "optimizer_steps": {
        "loader": "@/loader/train",
        "grad_accum": "@/globals/grad_accum",
        **_MAX_EPOCH,
    },
    "scaled_lr": {
        "batch_size": "@/loader/train/batch_size",
        "grad_accum": "@/globals/grad_accum",
    },
    # Validation
    **dict.fromkeys(("ProjectMetric", *METRICS, *METRICS_OF_LABELS, *METRICS_OF_NUMBERS), _PROJECT),
    "Evaluator": {
        "loader": "@/loader/val",
        "model": "@/ema.module",
        "loss": "@/loss",
        "task": "@/task",
        "runtime": "@/runtime",
        "validations": "@/globals/validations",
        **_MAX_EPOCH,
    },
    "Probe": {
        "backbone": "@/model.backbone",
        "project": "@/project",
        "runtime": "@/runtime",
        "snapshot_interval": "@/globals/snapshot_interval",
        "meta_file": "@/globals/meta_file",
        **_MAX_EPOCH,
    },
    # Manager, extensions and triggers
    "TrainingManager": {
        "models": "@/model",
        "optimizers": "@/optimizer",
        "max_epochs": "@/globals/max_epoch",
        "iters_per_epoch": {"type": "len", "obj": "@/loader/train"},
        "out_dir": "@/globals/output_path",
        "state_objects": {
            "scheduler": "@/scheduler",
            "scaler": "@/runtime.scaler",
            "ema": "@/ema",
        },
    },
    "LearningCurve": _MAX_EPOCH,
    "ConsoleReport": {**_MAX_EPOCH, "iters_per_epoch": "@/manager/iters_per_epoch"},
    "WeightsSnapshot": {"target": "@/ema.module"},
    "EveryAndLast": {"n": "@/globals/snapshot_interval", **_MAX_EPOCH},
    "LastEpoch": _MAX_EPOCH,
    "CollapseWatch": {"dim": "@/model.dim", "stop": "@/globals/stop_on_collapse"},
    "RankWatch": {"stop": "@/globals/stop_on_collapse"},
}


def wired(tree: Mapping[str, Any], own_types: Mapping[str, Callable[..., Any]]) -> dict[str, Any]:
    """Return an experiment with the arguments that its components get written out.

    Components with names are in their order, and the dropped ones are gone.

    Args:
        tree: The experiment after imports and overrides; it is not changed.
        own_types: The types of the project, which declare their own.

    Raises:
        ConfigError: A component is to come before one that is not there.
    """
    result: dict[str, Any] = _wired(tree, [], tree, own_types)
    return result


def wiring_of(name: object, own_types: Mapping[str, Callable[..., Any]]) -> Mapping[str, Any]:
    """Return the arguments that a type gets where they are left out.

    Args:
        name: The ``type:`` of a component.
        own_types: The types of the project; they win over the package's of the same name.

    Returns:
        Argument -> value.
    """
    if not isinstance(name, str):
        return {}
    if name in own_types:
        declared = getattr(own_types[name], _DECLARED, {})
        return {argument: f"@{path}" for argument, path in declared.items()}
    return WIRING.get(name, {})


def _wired(
    node: Any,
    path: Sequence[Key],
    tree: Mapping[str, Any],
    own_types: Mapping[str, Callable[..., Any]],
) -> Any:
    if isinstance(node, list):
        return [_wired(child, [*path, k], tree, own_types) for k, child in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    full = in_order(node, path) if holds_names(path, node) else dict(node)
    for argument, value in wiring_of(node.get("type"), own_types).items():
        if argument not in node and _available(value, [*path, argument], tree):
            full[argument] = _kept(value, [*path, argument], tree)
    return {key: _wired(child, [*path, key], tree, own_types) for key, child in full.items()}


def _available(value: Any, at: Sequence[Key], tree: Mapping[str, Any]) -> bool:
    """Return whether an experiment has the section that a reference leads into."""
    if not is_reference(value):
        return True
    target, _ = parse_reference(value, at)
    return bool(target) and (target[0] in CONTEXT or target[0] in tree)


def _kept(value: Any, at: Sequence[Key], tree: Mapping[str, Any]) -> Any:
    """Return a declared value without the entries that lead into sections that are not there."""
    if not isinstance(value, Mapping):
        return value
    return {key: child for key, child in value.items() if _available(child, [*at, key], tree)}
