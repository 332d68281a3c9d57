"""A new project: the recommended recipe, and a project file to fill in or made from the data."""

import logging
import tempfile
from pathlib import Path

from foldsmith.errors import FoldsmithError
from foldsmith.new.decisions import Ask, Decisions, choose_time
from foldsmith.new.files import (
    README,
    RECIPES_OF_TARGETS,
    TEMPLATE,
    TO_FILL_IN,
    Content,
    Found,
    LinkToImages,
    filled_in,
    own_name,
    project_values,
    readme_values,
    recipe_texts,
    refuse_finished,
    templates,
    write_all,
)
from foldsmith.new.find import find
from foldsmith.new.new_rows import Data
from foldsmith.new.new_tables import IMAGES, TEST_IMAGES
from foldsmith.new.sample import SAMPLE
from foldsmith.new.timing.planned import measured, planned, read_plan
from foldsmith.project import ProjectFolder
from foldsmith.project.planned_time import TIME_PLAN
from foldsmith.project.project_file import PROJECT_FILE
from foldsmith.steps.output_folder import shown
from foldsmith.utils.log_output import lines_hidden

logger = logging.getLogger(__name__)

_INPUT = Path("input")
# Rows that were left out, with the reason.
_SKIPPED = "skipped.csv"


def new_project(folder: Path, time: str | None = None) -> Path:
    """Write a project file to fill in and the experiments of the recommended recipe.

    Args:
        folder: The project folder; made if it is not there.
        time: How long a run may take, as in ``15m``; None for 15 minutes.

    Returns:
        The project file.

    Raises:
        OutputError: One of the files is there already; nothing is written then.
    """
    refuse_finished(folder)
    time = choose_time(time or "small", 0)
    values = TO_FILL_IN | {"name": own_name(folder), "time": time}
    write_all(folder, filled_in(templates("numbers"), values))
    logger.info(
        f"next: set the lines of {shown(folder / PROJECT_FILE)} that describe your data; then, "
        f"in {shown(folder)}: foldsmith doctor, foldsmith run -cfg exp_config/901.yml --time {time}"
    )
    return folder / PROJECT_FILE


def new_project_of(folder: Path, data: Data, ask: Ask | None = None, yes: bool = False) -> Path:
    """Look at images and tables, and write a project that is ready to run.

    The tables are written anew into its ``input``, with all their columns, the column ``path``
    and, where targets of text are taken for a scale, one of numbers; the images stay where they
    are, behind the link ``input/images``. How columns are chosen is said by
    :func:`~foldsmith.new.survey.guesses.guess_id`, ``guess_target`` and ``guess_group``, the rest
    by ``examine_target``, ``choose_folds`` and
    :meth:`~foldsmith.new.decisions.Decisions.has_order`. The default metric is RMSE for a scale and
    Accuracy for classes; the time 15 minutes without a GPU, else an hour, and 8 hours from
    20,000 images on. Sizes, backbones and epochs that fit the time are chosen by
    :func:`~foldsmith.new.timing.rule.choose`. Each choice is printed, and the first row with its
    image and target.

    Classes without an order, and targets with a metric that needs probabilities (LogLoss, AUC), get
    experiments that predict the probabilities of classes.

    Args:
        folder: The project folder; made if it is not there.
        data: The data, and its known properties.
        ask: Asks a person where several columns are possible.
        yes: Ask nothing. Among several possible columns take the one with a usual name; numbers
            are a scale unless they may be ids of classes and their column
            is called so, or the metric judges classes without an order.

    Returns:
        The project file.

    Raises:
        DataError: The data has errors, or a column must be named because there is no terminal to
            ask.
        OutputError: One of the files is there already. Nothing is written in either case.
    """
    refuse_finished(folder)
    found = find(data, Decisions(ask, yes))
    contents = _planned(folder, found, _contents(folder, found))
    # One project is not to be mixed with another of fewer files.
    may_be = [name for recipe in RECIPES_OF_TARGETS for name in templates(recipe)]
    may_be += [_INPUT / name for name in (_SKIPPED, SAMPLE, IMAGES, TEST_IMAGES)]
    write_all(folder, contents, others=[name for name in may_be if name not in contents])
    logger.info(
        f"next, in {shown(folder)}: foldsmith doctor, foldsmith run -cfg exp_config/901.yml"
    )
    return folder / PROJECT_FILE


def _contents(folder: Path, found: Found) -> dict[Path, Content]:
    """Return the content of each file of a project in a folder, without planned values."""
    names = {Path(README): TEMPLATE / README, **templates(found.recipe)}
    return {
        **{_INPUT / name: LinkToImages(to, folder) for name, to in found.links.items()},
        **{_INPUT / "train.csv": found.train, _INPUT / "test.csv": found.test},
        **({_INPUT / _SKIPPED: found.skipped} if len(found.skipped) else {}),
        **({} if found.sample is None else {_INPUT / SAMPLE: found.sample}),
        **filled_in(names, project_values(folder, found) | readme_values(folder, found)),
    }


def _planned(folder: Path, found: Found, contents: dict[Path, Content]) -> dict[Path, Content]:
    """Return the contents with the values that fit the time, and the record of the plan first.

    The same project is written into a temporary folder, where its own experiments are timed. The
    plan of a command that was killed while it wrote is taken as it is.
    """
    texts = recipe_texts(found.recipe, found.budget, len(found.train) + len(found.test))
    plan = read_plan(folder)
    if plan is None or plan.time != found.time:
        try:
            with tempfile.TemporaryDirectory(prefix="foldsmith-") as trial, lines_hidden():
                write_all(Path(trial), _contents(Path(trial), found))
                timed = measured(ProjectFolder.open(trial), found.time, texts)
        except FoldsmithError as error:
            logger.info(f"note: sizes and epochs are not planned: {error}")
            logger.info(f"      (when that is mended: foldsmith run --time {found.time})")
            return contents
        plan = planned(timed, found.time)
    experiments = {Path(name) for name in texts}
    return {
        Path(TIME_PLAN): plan.text,
        **{path: content for path, content in contents.items() if path not in experiments},
        **{Path(name): text for name, text in plan.texts.items()},
    }
