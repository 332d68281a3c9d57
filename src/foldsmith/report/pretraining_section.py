"""The section of a pretraining: curves, probes, a map of the features, neighbours."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.project import ProjectFolder
from foldsmith.project.tables import (
    image_paths,
    read_folds,
    targets_of,
)
from foldsmith.report import figures
from foldsmith.report.parts import (
    Gallery,
    Part,
    Section,
    not_done,
    picture,
    thumbnail,
)
from foldsmith.report.step_section import step_section
from foldsmith.steps.base import Plan, Step
from foldsmith.steps.frozen_features import TRAIN_FEATURES
from foldsmith.steps.manifest import read_manifest, verified
from foldsmith.training.files import PROBES_FILE, entries_of

# Images of a map: more make it slow, and no clearer.
_MAPPED = 4000
# Images whose neighbours are shown, and how many of them.
_ASKED, _NEIGHBOURS = 6, 5


def pretraining_section(plan: Plan, step: Step) -> Section:
    """Return the section of a finished pretraining."""
    section = step_section(step)
    log = entries_of(step.folder)
    if not log:
        section.parts.append(not_done("This pretraining"))
        return section
    keys = [key for key in ("train/loss", "train/std", "lr") if any(key in e for e in log)]
    section.parts.append(
        picture(
            "Loss; spread of the features (near 0: collapsed); learning rate",
            figures.curves({step.name: log}, keys),
        )
    )
    probes = step.folder / PROBES_FILE
    if probes.is_file():
        rows = pd.read_csv(probes)
        names = [name for name in rows.columns if name not in ("epoch", "best")]
        entries = rows.to_dict("records")
        section.parts.append(
            picture(
                "Probes of the frozen features on the project's folds",
                figures.curves({step.name: entries}, names),  # type: ignore[dict-item]
            )
        )
    section.parts += _features(plan, step)
    return section


def _features(plan: Plan, step: Step) -> Iterator[Part]:
    """Yield the map of the features and nearest neighbours, where a member has kept them."""
    project = plan.project
    for other in plan.steps:
        experiment = other.experiment
        file = other.folder / TRAIN_FEATURES
        if experiment is None or not file.is_file():
            continue
        weights = experiment.tree["model"].get("pretrained")
        if not isinstance(weights, str) or project.path(weights).parent != step.folder:
            continue
        fitted = read_manifest(other.kind.manifest(other))
        if fitted is None:
            continue
        features = np.load(verified(file, fitted), allow_pickle=False)
        folds = read_folds(project, experiment.globals.meta_file)
        if len(features) != len(folds):
            continue  # of other tables
        targets = targets_of(project, folds)
        title = f"Labelled images by the features of {other.name} (principal components)"
        chosen = np.linspace(0, len(folds) - 1, min(_MAPPED, len(folds))).astype(int)
        on_map = project.form.on_map(targets)
        if on_map is not None:
            names = project.class_names
            yield picture(title, figures.map_of(features[chosen], on_map[chosen], names))
        yield _neighbours(project, folds, features)
        return


def _neighbours(
    project: ProjectFolder, folds: pd.DataFrame, features: npt.NDArray[np.float32]
) -> Gallery:
    targets = project.form.shown(targets_of(project, folds))
    scaled = features - features.mean(axis=0)
    scaled /= np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-9)
    paths = image_paths(project, folds)
    images = []
    for k in np.linspace(0, len(folds) - 1, min(_ASKED, len(folds))).astype(int):
        nearest = np.argsort(-(scaled @ scaled[k]), kind="stable")
        row = [k, *(other for other in nearest if other != k)][: _NEIGHBOURS + 1]
        images += [
            (thumbnail(paths[j], project.intensity_range), f"target {targets[j]}") for j in row
        ]
    caption = "Left an image, beside it its nearest by cosine of the frozen features"
    return Gallery(caption, images, _NEIGHBOURS + 1)
