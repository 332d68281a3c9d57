"""Where classes have no order, nothing lies between two of them."""

import numpy as np
import pytest

from foldsmith.blending.base import Goal
from foldsmith.config.settings import Globals
from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.targets.classification import MultiClass
from foldsmith.targets.metrics import TYPES
from foldsmith.targets.scoring import mean_prediction
from foldsmith.targets.tasks import create_task

NAMES = ("cat", "dog", "horse")
TASK = MultiClass((0.0, 1.0, 2.0), NAMES)
# Between the first and the last, which a mean would call the one in the middle.
TORN = np.log([[0.5, 0.1, 0.4], [0.4, 0.05, 0.55]]).astype(np.float32)


@pytest.fixture
def unordered(tmp_path):
    def make(metric):
        (tmp_path / "project.yml").write_text(
            "name: x\nimage_path: '{id}.png'\nid_column: id\ntarget_column: kind\n"
            f"class_names: [cat, dog, horse]\nmetric: {metric}\nfolds: {{method: KFold}}\n"
        )
        return ProjectFolder.open(tmp_path)

    return make


def test_the_most_probable_class_is_predicted():
    np.testing.assert_array_equal(TASK.predict(TORN), [0, 2])
    expected = MultiClass(TASK.class_values).predict(TORN)
    np.testing.assert_allclose(expected, [0.9, 1.15], atol=1e-6)


def test_several_models_are_averaged_by_their_probabilities():
    # Two for the last with a little, one for the first with much.
    logits = np.log([[[0.9, 0.05, 0.05]], [[0.2, 0.3, 0.5]], [[0.2, 0.3, 0.5]]])
    np.testing.assert_array_equal(
        mean_prediction([TASK] * len(logits), logits.astype(np.float32)), [0]
    )
    ordered = mean_prediction(
        [MultiClass(TASK.class_values)] * len(logits), logits.astype(np.float32)
    )
    np.testing.assert_allclose(ordered, [(0.15 + 1.3 + 1.3) / 3], atol=1e-6)


def test_accuracy_counts_the_most_probable(unordered):
    metric = unordered("Accuracy").metric
    assert (metric.name, metric.takes_probabilities, metric.greater_is_better) == (
        *("Accuracy", True, True),
    )
    probabilities, targets = np.exp(TORN).astype(np.float64), np.array([0.0, 1.0])
    assert metric(probabilities, targets) == 0.5
    np.testing.assert_array_equal(metric.rows(probabilities, targets), [1, 0])
    # Whichever number a class has.
    turned = [2, 0, 1]
    assert metric(probabilities[:, turned], np.array([1.0, 2.0])) == 0.5
    assert TYPES["Accuracy"](unordered("LogLoss")) == metric
    assert unordered("LogLoss").metric.for_points() == metric


def test_a_blend_points_at_the_most_probable(unordered):
    project = unordered("Accuracy")
    goal = Goal.of_project(project)
    np.testing.assert_array_equal(goal.points(np.exp(TORN)), [0, 2])
    assert goal.labels == NAMES and goal.bounds == (0, 1)


@pytest.mark.parametrize("task", ["regression", "corn", "hl-gauss"])
def test_a_task_that_needs_an_order_is_refused(unordered, task):
    with pytest.raises(ConfigError, match=f"globals/task: {task} needs an order"):
        create_task(Globals(task=task), unordered("Accuracy"))
    assert create_task(Globals(task="multi-class"), unordered("AUC")) == TASK
