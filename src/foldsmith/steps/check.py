"""Checking an experiment without running it."""

from collections.abc import Sequence
from pathlib import Path

from foldsmith.config import Context, Experiment
from foldsmith.config.check import check_experiment
from foldsmith.config.output_path import check_output
from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.steps.kinds.registry import resource_problems
from foldsmith.steps.registry import types_of
from foldsmith.utils.atomic import remove_leftovers_of, replacing
from foldsmith.utils.hashing import FileHashes


def check(project: ProjectFolder, config: Path | str, overrides: Sequence[str] = ()) -> str:
    """Check an experiment file, and build the components that need no data.

    Args:
        project: The project.
        config: Experiment file, relative to the project folder.
        overrides: ``PATH=VALUE`` each.

    Returns:
        The resolved configuration as YAML.

    Raises:
        ConfigError: One line per problem.
        OutputError: It may not write into its output folder.
    """
    experiment = Experiment.load(project, Path(config), overrides)
    problems = list(resource_problems(project))
    if problems:
        raise ConfigError("\n".join(problems))
    types = types_of(project)
    check_experiment(experiment, types)
    if experiment.tree.keys() - {"globals", "ensemble"}:
        # Components are built with torch and timm, which take seconds; an ensemble has none.
        from foldsmith.steps.trial_build import check_components

        check_components(experiment, types)
    check_output(experiment)
    return experiment.dump()


def show_augmentations(
    project: ProjectFolder, config: Path | str, sheet: Path, overrides: Sequence[str] = ()
) -> Path:
    """Write a contact sheet of an experiment's training transforms on real images.

    Args:
        project: The project.
        config: Experiment file of a pretraining or a training.
        sheet: The PNG or JPEG to write.
        overrides: ``PATH=VALUE`` each.

    Raises:
        ConfigError: The experiment is wrong or has no images.
    """
    import cv2

    from foldsmith.data.cache.image_store import ImageStore
    from foldsmith.data.contact_sheet import contact_sheet

    experiment = Experiment.load(project, Path(config), overrides)
    types = types_of(project)
    if "train" not in experiment.tree.get("dataset", {}):
        raise ConfigError(f"{experiment.file}: {experiment.globals.task} has no augmentations")
    if sheet.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ConfigError(f"{sheet}: must end in .png or .jpg")
    check_experiment(experiment, types)
    # Only the images that are shown are decoded.
    store = ImageStore(None, FileHashes(project.hash_store), project.intensity_range)
    context = Context(images=store)
    dataset = experiment.build(types, context)["dataset/train"]
    image = cv2.cvtColor(contact_sheet(dataset, project.intensity_range), cv2.COLOR_RGB2BGR)
    remove_leftovers_of(sheet)
    with replacing(sheet) as temporary:
        cv2.imwrite(str(temporary), image)
    return sheet
