"""``globals`` of an experiment file, and the sections of each kind of experiment."""

from collections.abc import Container
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from foldsmith.config.loggers import LoggerName
from foldsmith.project.class_weights import ClassWeights
from foldsmith.project.resources import Resources


@dataclass(frozen=True)
class AllExcept(Container[object]):
    """All values of ``globals/task`` except some: a project may have tasks of its own.

    Attributes:
        names: The exceptions.
    """

    names: tuple[str, ...]

    def __contains__(self, task: object) -> bool:
        return task not in self.names


# Values of ``globals/task`` that are not supervised tasks (these are in ``targets/tasks.py``).
OTHER_TASKS = ("self-supervised", "frozen-features", "ensemble")

# Tasks that train a model per fold.
FINE_TUNINGS = AllExcept(OTHER_TASKS)

# Tasks whose predictions an ensemble blends.
MEMBERS = AllExcept(("self-supervised", "ensemble"))

# Not a supervised task, but it has a scale of the target, since its head learns the target.
HEAD_DECIDES = ("frozen-features",)

TestTimeAugmentation = Literal["none", "hflip", "flips"]

# Which epoch's snapshot of each fold is used.
Checkpoint = Literal["metric", "loss", "last", "common"]

BlendMethod = Literal[
    "mean", "best", "box", "simplex", "nnls", "ridge", "greedy", "optuna", "stack"
]
Calibration = Literal["auto", "none", "isotonic", "thresholds", "priors"]


class Globals(BaseModel):
    """The section ``globals`` of an experiment file.

    Attributes:
        task: A supervised task, ``multi-class``, ``regression``, ``hl-gauss`` (bins of the target),
            ``corn`` (ordered classes), ``multi-label`` (several labels per image),
            ``multi-regression`` (several numbers), ``multi-classification`` (several class targets)
            or one of the project's own Python; or ``self-supervised``, ``frozen-features`` (a small
            model on the features of a backbone that is not trained further) or ``ensemble``.
        seed: Seed of weights, order, augmentation and mixup.
        output_path: Output folder of a pretraining or an ensemble, relative to the project
            folder. For ``train`` it is set to ``output_root/fold{k}``.
        output_root: Output folder of a K-fold training or of frozen features.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps`` (Apple's GPU), or ``auto``: a CUDA device if
            there is one, else Apple's GPU, else the CPU.
        max_epoch: Number of epochs.
        grad_accum: Batches per optimizer step.
        val_fold: Folds to train: one number, a list, or null for all. Set per fold.
        meta_file: Train table with the column ``fold``; the one that ``preprocess``
            writes if null.
        freeze_backbone: Train the head alone.
        head_epochs: First epochs of a fine-tuning that train the head alone, on a backbone that
            stands still; everything is trained after them (LP-FT, Kumar et al. 2022).
        head_init: Where the head of a fine-tuning begins: ``random``, or ``ridge``: a ridge
            regression on the features that the backbone begins with (task regression, head of
            one linear layer).
        target_scale: Scale on which regressions, label distributions, numbers from frozen features
            and blends learn the target: ``linear`` (centred and scaled by the training targets of
            each fold, outliers clipped), ``log`` (of the distance from the lowest or highest
            target, on the side of the short tail), ``rank`` (normal scores of the ranks),
            ``auto`` (``linear``, or ``log`` if the target is clearly skewed, which is printed) or
            ``none`` (the numbers themselves). Predictions are always in units of the target.
        ema_decay: Validate and keep a moving average of the weights with this decay, as in
            0.999; null keeps the weights themselves.
        auxiliary: Weight of each auxiliary head of a fine-tuning, by the name that the project
            declares it under.
        class_weights: Weights of classes or labels in the loss of a fine-tuning and in heads on
            frozen features: ``balanced``, a weight by name as in ``{cat: 1, lynx: 5}``, or
            ``none``; null takes the ``class_weights`` of ``project.yml``.
        n_bins: Bins of a label distribution.
        label_sigma: Standard deviation of its soft labels, in bins.
        continuous_target: Learn the distribution of the project's ``continuous`` column.
        validations: Validations of a fine-tuning, spread evenly over its epochs, the last one after
            the last epoch; null validates after every epoch. The checkpoints ``metric``, ``loss``
            and ``common`` choose among the validated epochs.
        snapshot_interval: Epochs between two kept backbones of a pretraining.
        snapshot_epochs: ``all`` keeps every epoch's snapshot of a fine-tuning, until an inference
            deletes them, so that it can take one epoch for all folds (``-cri common``).
        resume_interval: Epochs between two snapshots to resume from; each replaces the last.
        stop_on_collapse: End a pretraining whose features have collapsed; otherwise warn.
        enable_amp: Mixed precision.
        amp_dtype: ``auto`` (bf16 where the hardware has it, else fp16 on CUDA, else off),
            ``bf16``, ``fp16`` or ``off``.
        channels_last: NHWC memory format of the model and its inputs. ``auto``: on CUDA the faster
            one in a short measurement (once per model, batch and card; true when
            ``deterministic``), false on Apple's GPU, true on a CPU.
        compile: ``torch.compile``: ``on``, ``off``, or ``auto``: on CUDA, if a measurement finds
            it faster and the training is long enough to earn the compilation back.
        deterministic: Only deterministic algorithms.
        cudnn_benchmark: Let cuDNN measure its algorithms; off when ``deterministic``.
        augment_on: Where training images are augmented: ``cpu``, ``gpu`` (in batches, with the
            same random numbers, the images resident there if they fit), or ``auto``: on CUDA
            where a short measurement finds it faster, once per model, images and card (kept in
            the project's ``.foldsmith/measurements.json``: without that file a training that
            goes on may be measured anew); the CPU when ``deterministic``. Pixels differ by the
            rounding of 8-bit values: by 1 of 255, after several changes of colour by up to 6.
        tta: Test-time augmentation of ``infer``: logits are averaged over the image alone
            (``none``), with its mirror image (``hflip``), or with its mirror images in both
            directions and both at once (``flips``).
        loggers: Where trainings can be watched, beside their log: any of ``tensorboard``,
            ``mlflow`` and ``wandb``; null is TensorBoard if it is installed.
        threads: Threads of torch in its steps on a CPU; null is torch's own choice, one per core.
            Another number changes the last digits of results. Where it is set, ``foldsmith run``
            does steps that do not need each other side by side, as many as the cores suffice for.
        resources: Resources of its steps, as in ``{cpus: 4, gpus: 0.5, memory_gib: 8}``; they
            replace those that the project sets for their kind.
        image_store: Keep decoded images on disk, in the project's ``.foldsmith/images``;
            otherwise they are decoded every time.
    """

    model_config = ConfigDict(extra="forbid")

    task: str
    seed: int = Field(default=0, ge=0)
    output_path: str | None = None
    output_root: str | None = None
    device: str = "auto"
    max_epoch: int = Field(default=1, ge=1)
    grad_accum: int = Field(default=1, ge=1)
    val_fold: int | list[int] | None = None
    meta_file: str | None = None
    freeze_backbone: bool = False
    head_epochs: int = Field(default=0, ge=0)
    head_init: Literal["random", "ridge"] = "random"
    target_scale: Literal["auto", "linear", "log", "rank", "none"] = "auto"
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    auxiliary: dict[str, Annotated[float, Field(gt=0)]] = {}
    class_weights: ClassWeights | None = None
    n_bins: int = Field(default=32, ge=2)
    label_sigma: float = Field(default=0.75, gt=0)
    continuous_target: bool = False
    validations: int | None = Field(default=None, ge=1)
    snapshot_interval: int = Field(default=50, ge=1)
    snapshot_epochs: Literal["none", "all"] = "none"
    resume_interval: int = Field(default=1, ge=1)
    stop_on_collapse: bool = False
    enable_amp: bool = True
    amp_dtype: Literal["auto", "bf16", "fp16", "off"] = "auto"
    channels_last: bool | Literal["auto"] = "auto"
    compile: Literal["off", "auto", "on"] = "off"
    deterministic: bool = False
    cudnn_benchmark: bool = True
    augment_on: Literal["auto", "cpu", "gpu"] = "auto"
    tta: TestTimeAugmentation = "none"
    loggers: list[LoggerName] | None = None
    threads: int | None = Field(default=None, ge=1)
    resources: Resources = Resources()
    image_store: bool = True

    @field_validator("compile", "amp_dtype", mode="before")
    @classmethod
    def _yaml_switch(cls, value: object) -> object:
        # YAML reads a bare "on" or "off" as true or false.
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class EnsembleSettings(BaseModel):
    """The section ``ensemble`` of an ensemble file.

    Attributes:
        experiments: Output folders of the experiments to blend.
        checkpoint: Epoch of each fold whose predictions are blended: ``metric``, ``loss``,
            ``last`` or ``common``.
        method: How the weights of ``weight_optimization_all`` are found: ``box`` (in 0..1 each,
            exact for RMSE), ``simplex`` (at least 0, summing to 1, exact for RMSE) or
            ``optuna`` (in 0..1 each, a search by the project's metric).
        methods: Blends to compare with the plain mean: ``best`` (the best member), ``box``,
            ``simplex``, ``nnls`` (at least 0), ``ridge`` (shrunk towards the plain mean),
            ``greedy`` (selection with replacement), ``stack`` (boosted trees, for several
            numbers of each; for labels a logistic regression of each; left out with more than 50
            classes), ``optuna`` (whose cross-fitted searches take a tenth of
            ``n_trials`` each).
        anytime: Blend the finished members anew whenever one of them ends, so that a submission
            exists early in a run; such a blend names the members that it waits for.
        calibrate: Calibration of the blends, cross-fitted like them: ``none``, ``isotonic`` (a
            rising function of the prediction), ``thresholds`` (for a metric of classes in an
            order: the boundaries between them; of labels: one for each), ``priors`` (for a metric
            of decisions between classes without an order: factors of their probabilities) or
            ``auto`` (thresholds or priors where the metric judges decisions other than by
            Accuracy, else none).
        n_trials: Optuna trials.
        weight_step: Step of Optuna's weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    experiments: list[str] = Field(min_length=1)
    checkpoint: Checkpoint = "metric"
    method: Literal["box", "simplex", "optuna"] = "box"
    methods: list[BlendMethod] = [
        "mean",
        "best",
        "box",
        "simplex",
        "nnls",
        "ridge",
        "greedy",
        "stack",
    ]
    anytime: bool = False
    calibrate: Calibration = "auto"
    n_trials: int = Field(default=1000, ge=1)
    weight_step: float = Field(default=0.001, gt=0, le=1)


# The key of all supervised tasks in the next two.
FINE_TUNING = "fine-tuning"

# The sections that the stages read, by task. A section may be a typed part or, where the
# name ends in "/", a folder of parts and values.
SECTIONS: dict[str, tuple[str, ...]] = {
    "self-supervised": (
        "model",
        "dataset/",
        "loader/train",
        "optimizer",
        "scheduler",
        "manager",
        "extensions",
    ),
    FINE_TUNING: (
        "model",
        "dataset/",
        "loader/train",
        "loader/val",
        "loader/test",
        "optimizer",
        "scheduler",
        "loss",
        "ema",
        "eval",
        "manager",
        "extensions",
    ),
    "frozen-features": ("model", "dataset/", "loader/val", "loader/test", "head"),
    "ensemble": ("ensemble/",),
}
# Optional sections of each stage.
OPTIONAL: dict[str, tuple[str, ...]] = {
    "self-supervised": ("progressive", "probe"),
    FINE_TUNING: ("dataset/mixup",),
    "frozen-features": ("loader/learn",),
    "ensemble": (),
}

# Typed sections that may be left empty.
NULLABLE = ("scheduler", "dataset/mixup", "progressive", "probe", "loader/learn")


def sections_of(task: str, own_kind: Any = None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the required and the optional sections of experiments of a task.

    Args:
        task: The task.
        own_kind: The project's own kind of steps that does such experiments; None if it is not
            one of these.
    """
    if own_kind is not None:
        return own_kind.sections, own_kind.optional_sections
    key = FINE_TUNING if task in FINE_TUNINGS else task
    return SECTIONS[key], OPTIONAL[key]
