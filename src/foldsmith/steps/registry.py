"""The registry: every name that ``type:`` may have, and the module that offers it.

A new component is one line here. Its module is imported when an experiment that names it is
checked or built.
"""

from collections.abc import Callable, Mapping
from typing import Any

from foldsmith.config.lazy_types import LazyTypes
from foldsmith.project import ProjectFolder
from foldsmith.targets import metrics, tasks

Places = Mapping[str, str | Callable[..., Any]]


def _of(module: str, *names: str) -> dict[str, str]:
    """Return the place of callables that experiments name as their module does."""
    return {name: f"{module}:{name}" for name in names}


METHODS: Places = {
    **_of("foldsmith.ssl.simsiam", "SimSiam"),
    **_of("foldsmith.ssl.byol", "BYOL"),
    **_of("foldsmith.ssl.simclr", "SimCLR"),
    **_of("foldsmith.ssl.barlow_twins", "BarlowTwins"),
    **_of("foldsmith.ssl.vicreg", "VICReg"),
    **_of("foldsmith.ssl.moco", "MoCoV3"),
    **_of("foldsmith.ssl.dino", "DINO"),
    **_of("foldsmith.ssl.lejepa", "LeJEPA"),
}

MODELS: Places = _of("foldsmith.models.classifier", "ImageModel", "trainable_parameters")

BACKBONES: Places = {
    "Backbone": "foldsmith.models.backbone:create_backbone",
    "PretrainedBackbone": "foldsmith.models.backbone:pretrained_backbone",
}

DESCRIPTORS: Places = {
    **_of("foldsmith.models.descriptors", "ImageDescriptors"),
    **_of("foldsmith.models.shape_descriptors", "ShapeDescriptors"),
    **_of("foldsmith.models.patch_dictionary", "PatchDictionary"),
    **_of("foldsmith.models.fisher_vectors", "FisherVectors"),
}

FEATURE_HEADS: Places = {
    **_of("foldsmith.models.logistic_head", "LogisticHead"),
    **_of("foldsmith.models.ridge_head", "RidgeHead"),
    **_of("foldsmith.models.svr_head", "SVRHead"),
    **_of("foldsmith.models.trees_head", "TreesHead"),
    **_of("foldsmith.models.mlp_head", "MLPHead"),
    **_of("foldsmith.models.feature_heads", "MeanHead"),
    **_of("foldsmith.models.kernel_head", "KernelHead"),
    **_of("foldsmith.models.kernel_labels", "KernelLabelsHead"),
    **_of("foldsmith.models.label_heads", "LabelsHead", "TreesLabelsHead"),
    **_of("foldsmith.models.number_heads", "NumbersHead"),
    **_of("foldsmith.models.class_target_heads", "ClassTargetsHead"),
}

LOSSES: Places = _of(
    "foldsmith.targets.losses",
    *(
        "CornLoss",
        "CrossEntropyLoss",
        "MSELoss",
        "L1Loss",
        "SmoothL1Loss",
        "HuberLoss",
        "QuantileLoss",
    ),
    *("BCEWithLogitsLoss", "FocalLoss", "AsymmetricLoss"),
    *("MaskedMSELoss", "MaskedL1Loss", "MaskedHuberLoss", "ClassTargetsLoss"),
)

TRANSFORMS: Places = _of(
    "foldsmith.data.transforms",
    *("CenterCrop", "CoarseDropout", "ColorJitter", "GaussianBlur", "HorizontalFlip"),
    *("LongestMaxSize", "Normalize", "OneOf", "PadIfNeeded", "RandomBrightnessContrast"),
    *("RandomCrop", "RandomErase", "RandomGridShuffle", "RandomResizedCrop", "Resize", "Rotate"),
    *("ShiftScaleRotate", "SmallestMaxSize", "Solarize", "ToGray", "Transpose", "VerticalFlip"),
)

MIXING: Places = _of("foldsmith.training.mixing", "Mixup", "CutMix", "MixupOrCutMix")

OPTIMIZERS: Places = {
    **_of("foldsmith.training.optimizers", "SGD", "Adam", "AdamW"),
    **_of("torch.optim", "NAdam", "RAdam", "RMSprop"),
    **_of(
        "torch.optim.lr_scheduler",
        *("OneCycleLR", "CosineAnnealingLR", "LinearLR", "StepLR", "MultiStepLR"),
    ),
}

PARAMETER_GROUPS: Places = _of(
    "foldsmith.training.parameter_groups", "parameter_groups", "layer_decay_groups"
)

SCHEDULES: Places = {"WarmupCosine": "foldsmith.training.schedules:warmup_cosine"}

PROGRESSIVE: Places = _of("foldsmith.training.progressive", "ProgressiveResize")

EMA: Places = _of("foldsmith.training.ema", "ModelEma")

EXTENSIONS: Places = {
    **_of("foldsmith.training.extensions.collapse", "CollapseWatch", "RankWatch"),
    **_of("foldsmith.training.extensions.console", "ConsoleReport"),
    **_of("foldsmith.training.extensions.evaluator", "Evaluator"),
    "LogReport": "foldsmith.training.extensions.log:log_report",
    **_of("foldsmith.training.extensions.plots", "LearningCurve"),
    **_of("foldsmith.training.extensions.probe", "Probe"),
    "WeightsSnapshot": "foldsmith.training.extensions.snapshots:weights_snapshot",
    "BestValueTrigger": "foldsmith.training.extensions.snapshots:best_value",
    "EveryAndLast": "foldsmith.training.extensions.snapshots:every_and_last",
    "LastEpoch": "foldsmith.training.extensions.snapshots:last_epoch",
}

MANAGER: Places = {
    "TrainingManager": "foldsmith.training.manager:create_manager",
    "len": "foldsmith.training.manager:length",
}

NUMBERS: Places = _of("foldsmith.training.loop", "optimizer_steps", "scaled_lr")

DATASETS: Places = {
    "LabelledImages": "foldsmith.data.project_images:labelled_images",
    "TestImages": "foldsmith.data.project_images:test_images",
    "AllImages": "foldsmith.data.project_images:all_images",
}

PROBE_DATASETS: Places = {"ProbeImages": "foldsmith.data.probe_images:probe_images"}

LOADERS: Places = _of("foldsmith.data.loader", "ImageLoader")

STATISTICS: Places = {"ChannelStatistics": "foldsmith.data.statistics:read_channel_statistics"}

# Subject, as the reference calls it -> its types.
SUBJECTS: Mapping[str, Places] = {
    "Self-supervised methods": METHODS,
    "Models": MODELS,
    "Backbones": BACKBONES,
    "Image descriptors": DESCRIPTORS,
    "Heads on frozen features": FEATURE_HEADS,
    "Tasks": tasks.TYPES,
    "Losses": LOSSES,
    "Metrics": metrics.TYPES,
    "Transforms": TRANSFORMS,
    "Mixup and CutMix": MIXING,
    "Optimizers and schedulers": OPTIMIZERS,
    "Parameter groups": PARAMETER_GROUPS,
    "Schedules": SCHEDULES,
    "Growing images": PROGRESSIVE,
    "Moving average of the weights (EMA)": EMA,
    "Extensions and triggers": EXTENSIONS,
    "Manager": MANAGER,
    "Numbers of a training": NUMBERS,
    "Datasets": DATASETS,
    "Images of the probe": PROBE_DATASETS,
    "Loader": LOADERS,
    "Statistics": STATISTICS,
}

LIBRARY_TYPES = LazyTypes(
    {name: place for places in SUBJECTS.values() for name, place in places.items()}
)


def types_of(project: ProjectFolder) -> LazyTypes:
    """Return the library's types and the project's own, which win where names are equal."""
    return LIBRARY_TYPES | project.types
