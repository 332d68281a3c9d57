"""The rows of ARCHITECTURE's table "Where to add", from a project's own Python.

One class or function and one line in ``TYPES`` each, used through the real registry in tiny
trainings.
"""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_project import EXPERIMENTS, write_experiment

import foldsmith
from foldsmith.config import Experiment
from foldsmith.config.check import check_experiment
from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.run.engine import run
from foldsmith.steps.registry import types_of
from foldsmith.targets.tasks import create_task

ROOT = Path(__file__).parents[2]

OWN = {
    "self-supervised method": """
import torch
from torch import nn
from foldsmith.models.backbone import num_features
from foldsmith.ssl.method import Method, feature_std, two_views
from foldsmith.ssl.momentum import momentum_copy
from foldsmith.ssl.whole_batch import full_precision, whole_batch

class Follow(Method):
    def __init__(self, backbone: nn.Module, out_dim: int = 8, momentum: float = 0.5) -> None:
        super().__init__()
        self.backbone, self.dim, self.momentum = backbone, out_dim, momentum
        self.projection = nn.Linear(num_features(backbone), out_dim)
        self.teacher = momentum_copy(self.projection)

    def teachers(self):
        yield self.teacher, self.projection

    def forward(self, views):
        first, second = (self.backbone(view) for view in two_views(views))
        ours, theirs = whole_batch(self.projection(first), self.teacher(second).detach())
        with full_precision(ours):
            loss = nn.functional.mse_loss(ours, theirs)
        return {"loss": loss, "std": feature_std(ours), "gap": (ours - theirs).abs().mean()}

TYPES = {"Follow": Follow}
""",
    "task": """
from dataclasses import dataclass
import numpy as np
import torch
from foldsmith.targets.class_values import nearest
from foldsmith.targets.task import Task

@dataclass(frozen=True)
class Exceeding(Task):
    # Output j is the logit of exceeding class j (Niu et al. 2016).
    class_values: tuple[float, ...]
    name = "exceeding"
    short_name = "exc"
    default_loss = "ExceedingLoss"

    @classmethod
    def from_settings(cls, settings, project):
        return cls(tuple(project.class_values))

    @property
    def n_outputs(self):
        return len(self.class_values) - 1

    @property
    def class_labels(self):
        return tuple(f"grade {value:g}" for value in self.class_values)

    def codes(self, labels):
        return nearest(labels, self.class_values)

    def encode(self, codes):
        ranks = torch.arange(self.n_outputs, device=codes.device)
        return (codes[:, None] > ranks).float()

    def probabilities(self, logits):
        exceeds = np.minimum.accumulate(1 / (1 + np.exp(-logits.astype(np.float64))), axis=-1)
        edge = np.ones_like(exceeds[..., :1])
        return -np.diff(np.concatenate([edge, exceeds, 0 * edge], axis=-1), axis=-1)

    def points(self, probabilities):
        return probabilities @ np.asarray(self.class_values)

    def predict(self, logits):
        return self.points(self.probabilities(logits))

    def constant_logits(self, labels):
        share = (self.codes(labels)[:, None] > np.arange(self.n_outputs)).mean(axis=0)
        share = share.clip(1e-6, 1 - 1e-6)
        return np.log(share / (1 - share)).astype(np.float32)

TYPES = {"exceeding": Exceeding}
""",
    "loss": """
from torch import nn

class ExceedingLoss(nn.Module):
    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, logits, exceeds):
        each = nn.functional.binary_cross_entropy_with_logits(logits, exceeds)
        return self.weight * each

TYPES = {"ExceedingLoss": ExceedingLoss}
""",
    "model or head": """
from torch import nn

class Tiny(nn.Sequential):
    def __init__(self, outputs: int, width: int = 8) -> None:
        super().__init__(
            nn.Conv2d(3, width, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(width, outputs),
        )

TYPES = {"Tiny": Tiny}
""",
    "augmentation": """
from dataclasses import dataclass
from pathlib import Path
from foldsmith.data.transforms.base import RandomTransform

@dataclass(frozen=True)
class Invert(RandomTransform):
    mark: str = ""

    def parameters(self, height, width, rng):
        return 255

    def change(self, image, drawn):
        if self.mark:
            Path(self.mark).touch()
        return drawn - image

TYPES = {"Invert": Invert}
""",
    "mixing of batches": """
import torch
from foldsmith.training.mixing import MixedBatch

class Halves:
    def active(self, epoch, max_epoch):
        return True

    def mix(self, images, rng):
        partner = torch.from_numpy(rng.permutation(len(images))).to(images.device)
        return MixedBatch((images + images[partner]) / 2, partner, 0.5)

TYPES = {"Halves": Halves}
""",
    "head on frozen features": """
import numpy as np

class Constant:
    def __init__(self, value):
        self.value = value

    def predict(self, features):
        return np.full(len(features), self.value)

    def arrays(self):
        return {"value": np.array([self.value])}

class MedianOf:
    def fit(self, features, targets, groups, seed):
        return Constant(float(np.median(targets)))

    def restore(self, arrays):
        return Constant(float(arrays["value"][0]))

TYPES = {"MedianOf": MedianOf}
""",
}


def table_rows() -> dict[str, str]:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = text.split("## Where to add")[1].split("\n\n")[1].splitlines()[2:]
    return dict(row.strip("| ").split(" | ", 1) for row in rows)


@pytest.mark.parametrize("row", OWN)
def test_the_table_has_a_row_of_each_and_its_files_exist(row):
    places = re.findall(r"`((?:\w+/)+\w*(?:\.py)?)`", table_rows()[row])
    assert places
    for place in places:
        assert (ROOT / "src/foldsmith" / place).exists() or (ROOT / place).exists(), place


@pytest.fixture
def own(small_project):
    """A project whose own Python brings one component of each kind."""
    for number, source in enumerate(OWN.values()):
        (small_project / f"own_{number}.py").write_text(source)
    settings = small_project / "project.yml"
    names = [f"own_{number}.py" for number in range(len(OWN))]
    settings.write_text(f"{settings.read_text()}python: {json.dumps(names)}\n")
    size = {"dataset/img_size": 16, "globals/max_epoch": 1, "loader/train/batch_size": 8}
    write_experiment(
        small_project,
        "050",
        {
            "import": "foldsmith:self_supervised.yml",
            "globals/output_path": "output/050",
            "model": {
                "type": "Follow",
                "out_dim": 16,
                "backbone": {"type": "Backbone", "model_name": "test_resnet"},
            },
            **size,
        },
    )
    write_experiment(
        small_project,
        "500",
        {
            "import": "foldsmith:multi_class.yml",
            "globals/task": "exceeding",
            "globals/output_root": "output/500",
            "loss": {"type": "ExceedingLoss", "weight": 2.0},
            "model": {"type": "Tiny", "outputs": "@/task.n_outputs"},
            "dataset/mixup": {"type": "Halves"},
            "dataset/train/transforms": [
                {"type": "Resize"},
                {"type": "Invert", "p": 1.0, "mark": str(small_project / "inverted")},
                {"type": "Normalize"},
            ],
            **size,
        },
    )
    write_experiment(
        small_project,
        "300",
        {
            "import": "foldsmith:frozen_features.yml",
            "globals/output_root": "output/300",
            "model/base_name": "test_resnet",
            "dataset/img_size": 16,
            "head": {"type": "MedianOf"},
        },
    )
    members = {"ensemble/experiments": ["output/500", "output/300"], "ensemble/checkpoint": "last"}
    methods = {"ensemble/methods": ["mean", "simplex"], "ensemble/method": "simplex"}
    write_experiment(small_project, "900", EXPERIMENTS["900"] | members | methods)
    return ProjectFolder.open(small_project)


def test_a_method_of_a_projects_own_is_pretrained_and_logged(own):
    run(own, "exp_config/050.yml")
    folder = own.path("output/050")
    (entry,) = json.loads((folder / "log.json").read_text())
    assert {"train/loss", "train/std", "train/gap"} <= entry.keys()
    assert (folder / "backbone_epoch_1.pth").is_file()


def test_a_task_a_loss_a_model_an_augmentation_and_a_head_work_from_training_to_predictions(own):
    run(own, "exp_config/900.yml")
    assert (own.folder / "inverted").is_file()
    logits = np.load(own.path("output/500/oof_logit_by_last.npy"))
    predictions = np.load(own.path("output/500/oof_prediction_by_last.npy"))[:, 0]
    experiment = Experiment.load(own, "exp_config/500.yml")
    task = create_task(experiment.globals, own)
    np.testing.assert_allclose(task.predict(logits), predictions)
    # The loss of the fold is the project's: twice the plain one.
    exceeds = pd.read_csv(own.path("output/500/oof_prediction_by_last.csv"))["target"]
    above = exceeds.to_numpy()[:, None] > np.arange(3)
    plain = np.logaddexp(0, np.where(above, -logits, logits).astype(np.float64)).mean()
    scores = pd.read_csv(own.path("output/500/score_by_last.csv"), index_col="fold")
    assert scores.loc["oof", "loss"] == pytest.approx(2 * plain, rel=1e-4)
    names = set(pd.read_csv(own.path("output/900/ensemble_scores.csv"))["name"])
    assert {"avg-exc", "avg-reg", "avg-all"} <= names
    # New images get the class probabilities of the task.
    images = sorted((own.folder / "input/photos").iterdir())[:2]
    predicted = foldsmith.load(own.path("output/500"), trust=True).predict(images)
    columns = [f"probability_grade {value}" for value in range(4)]
    np.testing.assert_allclose(predicted[columns].sum(axis=1), 1)
    values = predicted[columns] @ np.arange(4.0)
    np.testing.assert_allclose(predicted["prediction"], values)
    frozen = np.load(own.path("output/300/oof_prediction_by_last.npy"))
    assert len(np.unique(frozen)) <= 2


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("500", "globals/task=exceding", "unknown task exceding (did you mean exceeding?)"),
        ("500", "loss/wait=1", "ExceedingLoss has no argument wait (did you mean weight?)"),
        ("500", "globals/target_scale=log", "exceeding does not"),
        ("500", "globals/head_init=ridge", "not exceeding"),
        ("050", "model/moment=1", "Follow has no argument moment"),
    ],
)
def test_a_misspelt_word_is_found_before_anything_runs(own, name, override, message):
    experiment = Experiment.load(own, f"exp_config/{name}.yml", [override])
    with pytest.raises(ConfigError) as error:
        check_experiment(experiment, types_of(own))
    assert message in str(error.value)
