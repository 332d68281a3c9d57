"""A project with a few of its images, preprocessed beside it: for trials before preprocessing."""

import contextlib
import copy
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from foldsmith.project import ProjectFolder
from foldsmith.project.csv_files import read_texts
from foldsmith.project.tables import FOLD_COLUMN, image_paths, read_test, read_train
from foldsmith.steps.preprocess import preprocess
from foldsmith.utils.atomic import write_csv
from foldsmith.utils.log_output import lines_hidden

# Labelled images of a sample, and images to predict. Folds need several of each class.
_TRAIN, _TEST = 60, 4


@contextlib.contextmanager
def sampled(project: ProjectFolder, n_train: int = _TRAIN) -> Iterator[ProjectFolder]:
    """Yield the project with a few of its rows, preprocessed in a temporary folder.

    The data folder of the project is not written to.

    Args:
        project: The project.
        n_train: Labelled images, at least; folds may need more.

    Raises:
        DataError: One line per problem of the tables; or the few rows cannot fill the folds.
    """
    settings = project.settings
    n_train = max(n_train, 4 * project.n_splits)
    with tempfile.TemporaryDirectory(prefix="foldsmith-") as folder:
        data = Path(folder)
        for name, table, most in (
            (settings.train_csv, read_train(project, with_bad=True), n_train),
            (settings.test_csv, read_test(project), _TEST),
        ):
            rows = _spread(table, project.form.columns, settings.group_column, most)
            whole = read_texts(project.data_dir / name)
            _link(image_paths(project, table.iloc[rows]).texts(), project.data_dir, data)
            (data / name).parent.mkdir(parents=True, exist_ok=True)
            write_csv(data / name, whole.iloc[rows])
        tables = [each.table for each in settings.auxiliary.values() if each.table is not None]
        _link([str(project.data_dir / name) for name in tables], project.data_dir, data)
        sample = copy.copy(project)
        # A sample submission has the ids of the whole test table.
        changed = {"data_dir": str(data), "sample_submission": None}
        sample.settings = settings.model_copy(update=changed)
        with lines_hidden():
            preprocess(sample, skip_bad=True)
        yield sample


def _spread(table: pd.DataFrame, targets: Sequence[str], group: str | None, most: int) -> list[int]:
    """Return the positions of rows of many targets and groups, in their order."""
    if not len(table):
        return []
    order = np.arange(len(table))
    if set(targets) <= set(table.columns):
        order = np.lexsort([table[name].to_numpy() for name in reversed(targets)])
    chosen = np.unique(np.linspace(0, len(table) - 1, min(most, len(table))).astype(int))
    rows = set(order[chosen].tolist())
    if group in table:  # folds of groups need as many groups as there are folds
        rows |= set(np.flatnonzero(~table[group].duplicated())[:most].tolist())
    if FOLD_COLUMN in table:  # folds that the table brings along are all needed
        rows |= set(np.flatnonzero(table.groupby(FOLD_COLUMN).cumcount() < 4).tolist())
    return sorted(rows)


def _link(paths: Iterable[str], data: Path, sample: Path) -> None:
    """Link to files of the data folder from the same places of the sample's."""
    for path in dict.fromkeys(paths):
        link = sample / Path(path).relative_to(data)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists() and not link.is_symlink():
            link.symlink_to(path)
