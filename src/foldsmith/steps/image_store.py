"""The store of decoded images that stages share."""

from collections.abc import Iterable

from foldsmith.config import Experiment, Globals
from foldsmith.data.cache.image_store import ImageStore
from foldsmith.data.transforms.base import Compose
from foldsmith.project import ProjectFolder
from foldsmith.steps.registry import types_of
from foldsmith.utils.hashing import FileHashes


def open_store(project: ProjectFolder, settings: Globals, hashes: FileHashes) -> ImageStore:
    """Return the project's store of decoded images, or one that keeps none if so set."""
    folder = project.image_store if settings.image_store else None
    return ImageStore(folder, hashes, project.intensity_range)


def stored_heads(experiments: Iterable[Experiment]) -> list[Compose]:
    """Return the distinct transforms of experiments that run once per image.

    Nothing else of the experiments is built, so that this works before ``preprocess``.

    Args:
        experiments: Trainings, checked.
    """
    heads: dict[str, Compose] = {}
    for experiment in experiments:
        if not experiment.globals.image_store:
            continue
        # With lists in place of names.
        written = experiment.written_out()
        types = types_of(experiment.project)
        parts = written.build(types)
        for name, dataset in written.tree["dataset"].items():
            if not isinstance(dataset, dict) or not isinstance(dataset.get("transforms"), list):
                continue
            first = []
            for k, description in enumerate(dataset["transforms"]):
                # Asked of the class: Normalize cannot be built before the images are measured.
                named = description.get("type") if isinstance(description, dict) else None
                if named and not getattr(types[named], "stored", False):
                    break
                first.append(parts[f"dataset/{name}/transforms/{k}"])
            heads.setdefault(repr(first), Compose(first))
    return list(heads.values())
