"""Whether the mirror image of an image has the same target.

Letters and digits do not mean the same when they are mirrored, and an organ lies on one side: a
network that is trained on mirror images of them learns wrong ones. Most other images do.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold

from foldsmith.blending.bootstrap import bootstrap, interval
from foldsmith.config import Experiment
from foldsmith.data.images import decode
from foldsmith.errors import DataError
from foldsmith.models.simple_features import Features, shapes, small_copy
from foldsmith.models.simple_models import models_of_classes, models_of_numbers
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import groups_of, image_paths, read_train, targets_of
from foldsmith.project.target_forms import OneTarget
from foldsmith.targets.metrics import Metric, default_metric

Array = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int64]

# Transforms that mirror images.
_MIRRORS = ("HorizontalFlip", "VerticalFlip")

# Images that are looked at, at most, and parts that they are divided into.
_MOST_IMAGES, _PARTS = 600, 3

# A mirror image is another one if less than this share of what was learned holds for it. On four
# image sets that mirror images suit it was 0.80 to 0.99, on digits 0.22.
_LEAST_KEPT = 0.5


@dataclass(frozen=True)
class MirrorTest:
    """The metric for images and for their mirror images.

    Attributes:
        metric: Accuracy for classes without an order, RMSE for numbers.
        constant: The metric of a constant.
        images: The metric for images as they are.
        mirrored: The metric for their mirror images.
        same: Whether a mirror image has the same target, as far as these images show.
    """

    metric: Metric
    constant: float
    images: float
    mirrored: float
    same: bool

    @property
    def text(self) -> str:
        """The figures, for people."""
        return (
            f"{self.metric.name} by gradients alone: {self.images:.3g} for images, "
            f"{self.mirrored:.3g} for their mirror images, {self.constant:.3g} by a constant"
        )


def without_mirrors(experiment: Experiment) -> dict[str, Any]:
    """Return the values, by their paths, with which an experiment has no mirror images."""
    values: dict[str, Any] = {}
    if experiment.globals.tta != "none":
        values["globals/tta"] = "none"
    for part, settings in experiment.tree.get("dataset", {}).items():
        transforms = settings.get("transforms") if isinstance(settings, dict) else None
        for name, transform in (transforms if isinstance(transforms, dict) else {}).items():
            if isinstance(transform, dict) and transform.get("type") in _MIRRORS:
                values[f"dataset/{part}/transforms/{name}"] = None
    return values


def mirror_test(project: ProjectFolder) -> MirrorTest | None:
    """Find out whether mirror images have the same target.

    A support vector machine learns the target from histograms of gradients of some images, and
    predicts images of other groups, as they are and mirrored left to right.

    Args:
        project: The project; it need not be preprocessed.

    Returns:
        None if there are too few images or groups, or if the form of the target is not tested. Of
        several targets the first whose mirror images have another target, else the first.

    Raises:
        DataError: A table is wrong.
    """
    table = read_train(project)
    table = table.iloc[:: -(-len(table) // _MOST_IMAGES)]
    if not project.form.one_by_one(targets_of(project, table)):
        return None
    images, rows = [], []
    for row, path in enumerate(image_paths(project, table)):
        try:
            images.append(small_copy(decode(path, project.intensity_range)))
        except DataError:
            continue  # preprocess will say so
        rows.append(row)
    table = table.iloc[rows]
    groups = np.unique(groups_of(project, table), return_inverse=True)[1]
    if len(np.unique(groups)) < _PARTS:
        return None
    stacked = np.stack(images)
    features = shapes(stacked), shapes(np.ascontiguousarray(stacked[:, :, ::-1]))
    found = [
        _test_of(target, *features, groups)
        for target in project.form.one_by_one(targets_of(project, table))
    ]
    known = [test for test in found if test is not None]
    return next((test for test in known if not test.same), known[0] if known else None)


def _test_of(
    target: OneTarget, images: Features, mirrored: Features, groups: Groups
) -> MirrorTest | None:
    """Return the test of one target; None if too few groups have it."""
    seen = ~np.isnan(target.values)
    of_seen = np.unique(groups[seen], return_inverse=True)[1]
    if not seen.any() or of_seen.max() + 1 < _PARTS:
        return None
    metric = default_metric(target.unordered).for_classes(target.class_values, target.unordered)
    return compare(metric, images[seen], mirrored[seen], target.values[seen], of_seen)


def compare(
    metric: Metric, images: Features, mirrored: Features, targets: Array, groups: Groups
) -> MirrorTest:
    """Compare predictions from the features of images with those of their mirror images.

    Mirror images have other targets if the targets were learned, and less than half of that holds
    for mirror images, both clear of chance (95 %, bootstrap over groups).

    Args:
        metric: Judges the predictions.
        images: Features of the images, shape (n, n_features).
        mirrored: Features of their mirror images, shape (n, n_features).
        targets: Shape (n,).
        groups: Number of each image's group, from 0 on, shape (n,); at least three groups.
    """
    classes = metric.class_values
    models = models_of_classes(classes) if classes else models_of_numbers()
    model = models.get("SVM", models["trees"])
    shape = (len(targets), len(classes)) if classes else (len(targets),)
    found = {name: np.empty(shape) for name in ("constant", "images", "mirrored")}
    for learned, held in GroupKFold(_PARTS).split(images, targets, groups):
        fitted = model.fit(images[learned], targets[learned], groups[learned], 0)
        found["images"][held] = fitted.predict(images[held])
        found["mirrored"][held] = fitted.predict(mirrored[held])
        found["constant"][held] = (
            [np.mean(targets[learned] == value) for value in classes]
            if classes
            else targets[learned].mean()
        )
    drawn = bootstrap(metric, found, targets, groups, 0)
    gains = [metric.gain(drawn[name], drawn["constant"]) for name in ("images", "mirrored")]
    learned_something = interval(gains[0])[0] > 0
    lost_most = interval(_LEAST_KEPT * gains[0] - gains[1])[0] > 0
    scores = {name: metric(predictions, targets) for name, predictions in found.items()}
    return MirrorTest(metric, **scores, same=not (learned_something and lost_most))
