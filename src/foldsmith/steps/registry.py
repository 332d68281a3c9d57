"""The registry: every name that ``type:`` may have, gathered from the parts that offer them."""

from collections.abc import Callable
from typing import Any

from foldsmith import ssl
from foldsmith.data import (
    datasets,
    loader,
    statistics,
    transforms,
)
from foldsmith.data import (
    probe_images as probe_photos,
)
from foldsmith.models import backbone, classifier, descriptors, feature_heads
from foldsmith.project import ProjectFolder
from foldsmith.targets import losses, metrics, tasks
from foldsmith.training import (
    ema as weight_average,
)
from foldsmith.training import (
    extensions,
    loop,
    manager,
    optimizers,
    parameter_groups,
    progressive,
    schedules,
)
from foldsmith.training import (
    mixing as mixup,
)

LIBRARY_TYPES: dict[str, Callable[..., Any]] = {
    **transforms.TYPES,
    **statistics.TYPES,
    **datasets.TYPES,
    **probe_photos.TYPES,
    **loader.TYPES,
    **backbone.TYPES,
    **classifier.TYPES,
    **descriptors.TYPES,
    **ssl.TYPES,
    **feature_heads.TYPES,
    **losses.TYPES,
    **metrics.TYPES,
    **tasks.TYPES,
    **mixup.TYPES,
    **optimizers.TYPES,
    **parameter_groups.TYPES,
    **schedules.TYPES,
    **progressive.TYPES,
    **weight_average.TYPES,
    **loop.TYPES,
    **manager.TYPES,
    **extensions.TYPES,
}


def types_of(project: ProjectFolder) -> dict[str, Callable[..., Any]]:
    """Return the library's types and the project's own, which win where names are equal."""
    return LIBRARY_TYPES | project.types
