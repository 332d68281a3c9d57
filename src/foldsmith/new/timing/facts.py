"""Facts about the data, and measured speeds: the inputs of the rule."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# bf16 or fp16 must be this much faster than float32 to be taken.
MIXED_GAIN = 1.1


@dataclass(frozen=True)
class Level:
    """A backbone at an image size.

    Attributes:
        backbone: Name of the timm model.
        side: Side of its images in pixels.
        options: Arguments of the timm model.
        from_s: It is for runs of at least this many seconds.
    """

    backbone: str
    side: int
    options: tuple[tuple[str, Any], ...] = ()
    from_s: float = 0.0

    @property
    def name(self) -> str:
        """Name for people."""
        return f"{self.backbone} at {self.side} px"


@dataclass(frozen=True)
class Facts:
    """Facts about the data and the run.

    Attributes:
        n_train: Labelled images.
        n_test: Images to predict.
        side: Typical side of the images in pixels: the root of their area.
        longest: Typical longest side.
        n_splits: Folds.
        fine_tunings: Names of the experiments that are fine-tuned, the most useful first.
        untrained: Names of the members without a training, the most useful first.
        on_gpu: Whether trainings run on a GPU.
        views: Views of each image that a fine-tuning predicts, by fine-tuning; one that is larger
            than the crops of the training counts by its area.
        validations: Validations of a fold (``globals/validations``); None for one each epoch.
        processes: Trainings that run side by side.
        untrained_processes: Members without a training that are fitted side by side.
    """

    n_train: int
    n_test: int
    side: int
    longest: int
    n_splits: int
    fine_tunings: tuple[str, ...]
    untrained: tuple[str, ...]
    on_gpu: bool
    views: tuple[float, ...]
    validations: int | None = None
    processes: int = 1
    untrained_processes: int = 1

    @property
    def n_fold(self) -> int:
        """Images that the model of a fold is trained on."""
        return max(1, round(self.n_train * (self.n_splits - 1) / self.n_splits))


@dataclass(frozen=True)
class Speed:
    """The measured speed of a level.

    Attributes:
        mixed: Images per second of a training in mixed precision, loading included.
        full: The same in float32.
    """

    mixed: float
    full: float

    @property
    def takes_mixed(self) -> bool:
        """Whether mixed precision is enough faster to be taken."""
        return self.mixed >= MIXED_GAIN * self.full

    @property
    def taken(self) -> float:
        """Images per second in the precision that is taken."""
        return self.mixed if self.takes_mixed else self.full


@dataclass(frozen=True)
class MachineSpeeds:
    """Measured speeds of this machine.

    Attributes:
        levels: Name of each level -> its speed.
        preprocess_s: Seconds of ``preprocess`` per image.
        untrained_s: Seconds of each member without a training, in the order of the facts.
        start_s: Seconds until the first step of a run begins.
        epoch_s: Seconds of an epoch beside its images.
        member_s: Seconds of the first blend, and of the last one with the report.
        baselines_s: Seconds of the simple baselines, which the first blend waits for.
        spent_s: Seconds of the time that the measurement itself has taken.
        busy_cores: Cores that other processes kept busy, where that slows trainings.
    """

    levels: Mapping[str, Speed]
    preprocess_s: float
    untrained_s: tuple[float, ...]
    start_s: float
    epoch_s: float
    member_s: float
    baselines_s: float = 0.0
    spent_s: float = 0.0
    busy_cores: float = 0.0
