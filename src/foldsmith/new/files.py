"""The files of a new project: templates, filled in with the findings in the data."""

import logging
import os
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Literal, get_args

import pandas as pd

from foldsmith.config.imports import RECIPES
from foldsmith.data.intensity import IntensityRange, range_text
from foldsmith.errors import UNSUPPORTED, OutputError
from foldsmith.new.survey.labels import Labels
from foldsmith.new.survey.targets import Target
from foldsmith.project.budget import Budget, budget_of, seconds_of
from foldsmith.project.class_forms import ClassTargets
from foldsmith.project.label_forms import SeveralLabels
from foldsmith.project.number_forms import SeveralNumbers
from foldsmith.project.project_file import PROJECT_FILE
from foldsmith.project.settings import FoldSettings
from foldsmith.steps.output_folder import shown
from foldsmith.targets.metrics import (
    METRICS,
    METRICS_OF_CLASS_COLUMNS,
    METRICS_OF_LABELS,
    METRICS_OF_NUMBERS,
    Metric,
    default_metric,
    names_of,
)
from foldsmith.utils.atomic import remove_leftovers_of, write_csv, write_text
from foldsmith.utils.formatting import counted
from foldsmith.utils.yaml_io import numbers_yaml, read_yaml, scalar_yaml

logger = logging.getLogger(__name__)

# Template of a new project.
TEMPLATE = Path(__file__).parent / "template"

# The recommended experiments: for numbers, for classes without an order or a metric of class
# probabilities, for several labels, numbers or class targets per image.
Recipe = Literal["numbers", "classes", "labels", "several numbers", "class targets"]
RECIPES_OF_TARGETS: tuple[Recipe, ...] = get_args(Recipe)
# The recipes of other targets than one column.
_RECIPE_OF_KIND: dict[str, Recipe] = {
    SeveralLabels.kind: "labels",
    SeveralNumbers.kind: "several numbers",
    ClassTargets.kind: "class targets",
}
# Folders of experiments that take the place of the template's.
_TEMPLATES: dict[Recipe, Path] = {
    "classes": Path(__file__).parent / "template_classes",
    "labels": Path(__file__).parent / "template_labels",
    "several numbers": Path(__file__).parent / "template_numbers",
    "class targets": Path(__file__).parent / "template_class_targets",
}

README = "README.md"
_PRETRAINING = Path("exp_config/300.yml")

# With more images than this, Fisher vectors have so few Gaussians: 3,200 features, not 12,800, of
# which 10,000 images take half a gigabyte, and their heads some times as much.
_MANY_IMAGES, _FEW_GAUSSIANS = 20_000, 16

# Lines of the project file for a target that is a scale.
_SCALE = """\
target_range: {range}

# The values of the classes; [] for n_classes of them, evenly spaced over target_range.
n_classes: {n_classes}
class_values: {class_values}"""


def _listed(metrics: Iterable[Metric]) -> str:
    """Return the names of metrics as the lines of a comment."""
    text = f"{names_of(metrics)}; with options as in FBeta(beta=2)."
    return textwrap.fill(text, 99, initial_indent="# ", subsequent_indent="# ")


_METRICS: dict[Recipe, str] = {
    "numbers": _listed(metric for metric in METRICS.values() if not metric.needs_probabilities),
    "classes": _listed(metric for metric in METRICS.values() if not metric.needs_order),
    "labels": _listed(METRICS_OF_LABELS.values()),
    "several numbers": _listed(METRICS_OF_NUMBERS.values()),
    "class targets": _listed(METRICS_OF_CLASS_COLUMNS.values()),
}

# Parts of the README: the fine-tunings, and the file of probabilities.
_FINE_TUNINGS: dict[Recipe, str] = {
    "numbers": "`exp_config/410.yml`, `420.yml` | fine-tuning as regression, as a label "
    "distribution",
    "classes": "`exp_config/410.yml` | fine-tuning as classification",
    "labels": "`exp_config/410.yml` | fine-tuning with an output per label",
    "several numbers": "`exp_config/410.yml`, `420.yml` | two networks with an output per target",
    "class targets": "`exp_config/410.yml` | fine-tuning with the classes of each target",
}
_PROBABILITIES: dict[Recipe, str] = {
    "classes": " `probabilities.csv`: those of each class;",
    "labels": " `probabilities.csv`: those of each label;",
    "class targets": " `probabilities.csv`: those of each class of each target;",
}

# Lines for images with more than 8 bits per channel.
_INTENSITY = """

# The images have more than 8 bits per channel: these values become black (0) and white (255), in
# between linearly. One scale for all images, new ones too, so that brighter ones stay brighter.
intensity_range: {}"""

# Lines for a sample submission.
_SAMPLE = """

# Submissions take the form of this table: its columns, its ids and their order.
sample_submission: sample_submission.csv"""

# Values of the project file that are not set yet.
TO_FILL_IN = {
    "how_made": "Set these lines.",
    "image_path": "images/{image_id}.jpg",
    "intensity": "",
    "id_column": "image_id",
    "about_target": "# The column to predict, a number, and its lowest and highest possible value.",
    "target": "target_column: target\n"
    + _SCALE.format(range="[0, 3]", n_classes=4, class_values="[]"),
    "metrics": _METRICS["numbers"],
    "group_column": "group",
    "method": "StratifiedGroupKFold",
    "n_splits": 5,
    "metric": default_metric(unordered=False).name,
    "sample": "",
    "batch": "",
    "gaussians": "",
}


def recipe_of(kind: str, unordered: bool, metric: Metric) -> Recipe:
    """Return the experiments that suit a target.

    Args:
        kind: Kind of the target's form.
        unordered: It is classes without an order.
        metric: The metric.
    """
    of_one: Recipe = "classes" if unordered or metric.needs_probabilities else "numbers"
    return _RECIPE_OF_KIND.get(kind, of_one)


@dataclass(frozen=True)
class Found:
    """Contents of a new project.

    Attributes:
        train: The table of the labelled images to write.
        test: The table of the images to predict.
        sample: The sample submission, if there is one.
        skipped: Rows that were left out: table, id, reason.
        links: Name of each link in ``input`` -> folder of images.
        id_column: Column of the ids.
        path_column: Column of the images' paths.
        source_column: Column of the targets as they were.
        target_column: Column of the targets as the project takes them.
        group_column: Column of the groups, if there are groups.
        target: Description of the targets; of labels, where an image has several.
        ordered: They are a scale; if not, classes without an order.
        folds: How to split.
        metric: The metric that judges the predictions.
        time: How much time it may take, as in ``15m``.
        intensity: Scale of images with more than 8 bits per channel, if there are any.
    """

    train: pd.DataFrame
    test: pd.DataFrame
    sample: pd.DataFrame | None
    skipped: pd.DataFrame
    links: Mapping[str, Path]
    id_column: str
    path_column: str
    source_column: str
    target_column: str
    group_column: str | None
    target: Target | Labels
    ordered: bool
    folds: FoldSettings
    metric: Metric
    time: str
    intensity: IntensityRange | None

    @property
    def budget(self) -> Budget:
        """Which of three values the time takes."""
        return budget_of(seconds_of(self.time))

    @property
    def unordered(self) -> bool:
        """The targets are classes without an order."""
        return not self.ordered

    @property
    def recipe(self) -> Recipe:
        """The experiments that suit the target."""
        return recipe_of(self.target.kind, self.unordered, self.metric)


def project_values(folder: Path, found: Found) -> dict[str, Any]:
    """Return the values of the project file."""
    return {
        "how_made": "Found in the data by 'foldsmith new': look it over.",
        "name": own_name(folder),
        "image_path": scalar_yaml(f"{{{found.path_column}}}"),
        "intensity": ""
        if found.intensity is None
        else _INTENSITY.format(range_text(found.intensity)),
        "id_column": scalar_yaml(found.id_column),
        "about_target": _about_target(found),
        "target": _target_lines(found),
        "metrics": _METRICS[found.recipe],
        "group_column": scalar_yaml(found.group_column),
        "method": found.folds.method,
        "n_splits": found.folds.n_splits,
        "metric": scalar_yaml(found.metric.title),
        "sample": "" if found.sample is None else _SAMPLE,
        "time": found.time,
        "batch": _batch(found.budget, len(found.train) + len(found.test)),
        "gaussians": _gaussians(len(found.train) + len(found.test)),
    }


def _target_lines(found: Found) -> str:
    """Return the lines of the project file on the target."""
    target, column = found.target, f"target_column: {scalar_yaml(found.target_column)}\n"
    if isinstance(target, Labels):
        return target.project_lines
    if found.unordered:
        names = "\n".join(f"- {scalar_yaml(name)}" for name in target.classes)
        return f"{column}class_names:\n{names}"
    return column + _SCALE.format(
        range=numbers_yaml(target.range),
        n_classes=target.n_classes,
        class_values=numbers_yaml(target.class_values),
    )


def _batch(budget: Budget, n_images: int) -> str:
    """Return the pretraining's line for a smaller batch, where the images do not fill one."""
    recipe = read_yaml(RECIPES / "recommended_pretraining.yml")
    if n_images >= recipe["loader/train/batch_size"][budget]:
        return ""
    fits = 2 ** (n_images.bit_length() - 1)
    why = "# The recipe's batch is larger than all images together."
    return f"\n{why}\nloader/train/batch_size: {fits}"


def _gaussians(n_images: int) -> str:
    """Return the line of the Fisher vectors for fewer features, where many images have them."""
    if n_images <= _MANY_IMAGES:
        return ""
    why = "# More features of so many images would need much memory."
    return f"\n{why}\nmodel/n_components: {_FEW_GAUSSIANS}"


def _about_target(found: Found) -> str:
    """Return the comment above the target."""
    if isinstance(found.target, Labels):
        return found.target.about
    classes = found.target.classes
    if not classes:
        return str(TO_FILL_IN["about_target"])
    if found.unordered:
        return (
            "# The column to predict, a text, and its classes, which have no order. For steps of "
            "a scale,\n# begin anew with 'foldsmith new ... --scale'."
        )
    lines = [
        f"The column to predict: the classes of {on_one_line(found.source_column)} as numbers, in "
        "the order below;",
        f"for another order, change the numbers of {found.target_column} in input/train.csv. The "
        "experiments",
        "take them for steps of one scale. For classes without an order, begin anew with",
        "'foldsmith new ... --classes'.",
        *(f"  {number} = {on_one_line(name)}" for number, name in enumerate(classes)),
    ]
    return "\n".join(f"# {line}" for line in lines)


def readme_values(folder: Path, found: Found) -> dict[str, str]:
    """Return the values of the README."""
    target, added = found.target, f"the image's `{found.path_column}`"
    if isinstance(target, Labels):
        what = f"{len(target.names)} {target.kind.removeprefix('several ')}"
    elif found.unordered:
        what = f"{len(target.classes)} classes"
    elif target.classes:
        what = f"{len(target.classes)} classes (their order is in `project.yml`)"
        added += f" and the number of its class, `{found.target_column}`"
    else:
        what = f"the numbers {target.range[0]:g} to {target.range[1]:g}"
    groups = "every image by itself"
    if found.group_column is not None:
        groups = f"no {on_one_line(found.group_column)} in two of them"
    submission = "`submission.csv`: the predictions to hand in;"
    submission += _PROBABILITIES.get(found.recipe, "")
    to_predict = f"{counted(len(found.test), 'image')} to predict."
    if not len(found.test):
        submission = "`submission.csv`: empty, as there is nothing to predict;"
        to_predict = (
            "no images to predict.\n\nTo predict some later, put them below `input`, their ids and "
            f"paths into `input/test.csv` ({', '.join(found.test.columns)}), and run the same "
            "command. It begins anew, since the pretraining sees all images."
        )
    return {
        "title": folder.resolve().name,
        "summary": f"{counted(len(found.train), 'labelled image')}; target "
        f"{on_one_line(found.source_column)}, {what}; {found.folds.n_splits} folds, {groups}; "
        f"{to_predict}",
        "submission": submission,
        "fine_tunings": _FINE_TUNINGS[found.recipe],
        "added": added,
        "links": ", ".join(f"`input/{name}`" for name in found.links),
    }


def on_one_line(text: str) -> str:
    """Return a text of the data for a comment or a README: on one line."""
    return " ".join(text.split())


def own_name(folder: Path) -> str:
    """Return the name of a project, the name of its folder, as YAML."""
    return scalar_yaml(folder.resolve().name)


@dataclass(frozen=True)
class LinkToImages:
    """A link to a folder of images: relative if the project holds it, so that it may move.

    Attributes:
        target: The folder, absolute.
        project: The project folder.
    """

    target: Path
    project: Path

    def leads_to(self, link: Path) -> Path:
        """Return the path that the link points to."""
        if not self.target.is_relative_to(os.path.abspath(self.project)):
            return self.target
        return Path(os.path.relpath(self.target, os.path.abspath(link.parent)))

    def make(self, link: Path) -> None:
        """Make the link.

        Raises:
            OutputError: The file system has no links.
        """
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            link.symlink_to(self.leads_to(link), target_is_directory=True)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            raise OutputError(
                f"{shown(link)}: this file system has no links (Google Drive, say, has none); make "
                "the project on a local disk, and keep its folder output there by a link to it "
                "(notebooks/colab.ipynb shows it)"
            ) from None


# The path of each file in the new project -> its text or table, or the link that it is.
Content = str | pd.DataFrame | LinkToImages
Contents = Mapping[Path, Content]


def templates(recipe: Recipe) -> dict[Path, Path]:
    """Return the YAML files of a new project: their paths in it -> their templates.

    Args:
        recipe: The experiments, by the form of the target.
    """
    found = {path.relative_to(TEMPLATE): path for path in sorted(TEMPLATE.rglob("*.yml"))}
    if recipe not in _TEMPLATES:
        return found
    folder = _TEMPLATES[recipe]
    own = sorted(folder.rglob("*.yml"))
    shared = (Path(PROJECT_FILE), _PRETRAINING)
    return {name: found[name] for name in shared} | {path.relative_to(folder): path for path in own}


def filled_in(names: Mapping[Path, Path], values: Mapping[str, Any]) -> dict[Path, str]:
    """Return the text of each file of the project, from its template."""
    return {
        name: Template(template.read_text(encoding="utf-8")).substitute(values)
        for name, template in names.items()
    }


def recipe_texts(recipe: Recipe, budget: Budget, n_images: int) -> dict[str, str]:
    """Return path -> text of the recommended experiments, without planned values.

    Args:
        recipe: Which, by the form of the target.
        budget: Which of three values they take.
        n_images: Labelled images and images to predict.
    """
    names = templates(recipe)
    del names[Path(PROJECT_FILE)]
    values = {"batch": _batch(budget, n_images), "gaussians": _gaussians(n_images)}
    texts = filled_in(names, values)
    return {name.as_posix(): text for name, text in texts.items()}


def recipe_texts_to_fill_in() -> dict[str, str]:
    """Return path -> text of the experiments beside a project file to fill in."""
    names = templates("numbers")
    del names[Path(PROJECT_FILE)]
    return {name.as_posix(): text for name, text in filled_in(names, TO_FILL_IN).items()}


def write_all(folder: Path, contents: Contents, others: Iterable[Path] = ()) -> None:
    """Write the files of a new project, the project file last.

    A file that already has the right content is kept, so that a killed command can be run again.
    The project file comes last: if it exists, the project is complete.

    Args:
        folder: The project folder; made if it is not there.
        contents: Contents by file name.
        others: Further files that must not be there: those of another kind of project.

    Raises:
        OutputError: A file exists already and has other content. Nothing is written then.
    """
    refuse_finished(folder)
    for name in (*others, *contents):
        path = folder / name
        ours = name in contents and _is_written(path, contents[name])
        if os.path.lexists(path) and not ours:
            raise OutputError(f"{path}: exists already; name another folder")
    for name in sorted(contents, key=lambda path: path.name == PROJECT_FILE):
        path, content = folder / name, contents[name]
        remove_leftovers_of(path)
        there = os.path.lexists(path)
        if isinstance(content, LinkToImages):
            if not there:
                content.make(path)
            logger.info(f"linked {shown(path)} to {content.target}")
        elif isinstance(content, pd.DataFrame):
            if not there:
                write_csv(path, content)
            logger.info(f"wrote {shown(path)}: {counted(len(content), 'row')}")
        else:
            if not there:
                write_text(path, content)
            logger.info(f"wrote {shown(path)}")


def refuse_finished(folder: Path) -> None:
    """Make sure that there is no project in a folder yet.

    Raises:
        OutputError: There is one.
    """
    path = folder / PROJECT_FILE
    if os.path.lexists(path):
        raise OutputError(f"{path}: exists already; name another folder")


def _is_written(path: Path, content: Content) -> bool:
    """Return whether a path already has the content that is to be written."""
    if isinstance(content, LinkToImages):
        return path.is_symlink() and Path(os.readlink(path)) == content.leads_to(path)
    if not path.is_file():
        return False
    if isinstance(content, pd.DataFrame):
        return path.read_bytes() == content.to_csv(index=False).encode()
    return path.read_text(encoding="utf-8", errors="replace") == content
