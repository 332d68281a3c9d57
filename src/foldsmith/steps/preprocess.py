"""Stage 1: image statistics and folds."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.config import Experiment
from foldsmith.data.cache.image_facts import KeptFacts
from foldsmith.data.cache.image_store import ImageStore
from foldsmith.data.fold_table import (
    Split,
    class_sizes,
    fold_table,
    fold_table_text,
    fold_warnings,
    split,
)
from foldsmith.data.folds import ClassSizes
from foldsmith.data.image_table import IMG_INFO, STATS_BY_DATA
from foldsmith.data.intensity import range_text
from foldsmith.data.near_duplicates import NEAR_DUPLICATES, merged_groups, near_duplicates
from foldsmith.data.statistics import (
    MeasuredImages,
    intensity_problem,
    measured_images,
    statistics_by_data,
)
from foldsmith.data.table_checks import table_problems
from foldsmith.data.transforms.base import Compose
from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.project_file import PROJECT_FILE
from foldsmith.project.tables import (
    BAD_IMAGES,
    FOLD_COLUMN,
    MERGED_COLUMN,
    image_paths,
    read_test,
    read_train,
)
from foldsmith.steps.data_hashes import hash_contents, hash_tables
from foldsmith.steps.image_store import stored_heads
from foldsmith.steps.inputs.preprocess import inputs_read
from foldsmith.steps.manifest import PREPROCESS_MANIFEST, Inputs
from foldsmith.steps.output_folder import shown
from foldsmith.steps.step_run import StepRun
from foldsmith.utils.atomic import remove_leftovers_of, write_csv
from foldsmith.utils.formatting import counted
from foldsmith.utils.hashing import FileHashes, digest_texts
from foldsmith.utils.locking import lock
from foldsmith.utils.owned_files import OwnedFiles
from foldsmith.utils.path_list import Paths

logger = logging.getLogger(__name__)

# The list of preprocess's files, in a folder that is not foldsmith's.
PREPROCESS_FILES = "preprocess_files.json"

# An intensity range that clips a larger share of the values, or of which they take up a smaller
# part, does not fit.
_CLIPPED, _USED = 0.02, 0.25

# Bad images that an error lists; all of them are in the file that --skip-bad writes.
_LISTED = 20


def preprocess(
    project: ProjectFolder, skip_bad: bool = False, experiments: Sequence[Experiment] = ()
) -> pd.DataFrame:
    """Measure every image and split the labelled ones into folds.

    Writes into the data folder:

    - ``img_info.csv``: size, channel means and standard deviations of each image, 0..255,
    - ``stats_by_data.csv``: means and standard deviations of all pixels, of the pixels of train
      and of the pixels of test,
    - the fold table: the train table plus the column ``fold``,
    - ``near_duplicates.csv``, if there are near-identical images in different folds, or in train
      and test,
    - ``bad_images.csv``, if images were skipped.

    Args:
        project: The project.
        skip_bad: Leave out images that cannot be read: train images are not trained on, test
            images are predicted as the mean of the train targets.
        experiments: Trainings whose images are decoded into the image store on the way.

    Returns:
        The fold-by-target table.

    Raises:
        DataError: One line per problem of the tables and images; a table was changed meanwhile.
        OutputError: Another process runs it, or the data folder has a file that preprocess did not
            write under the name of one of its results.
    """
    run, data = StepRun.of(project), project.data_dir
    with lock(data / PREPROCESS_MANIFEST):
        # Before anything is read, so that later changes are noticed.
        before = hash_tables(project, run.hashes)
        owned = _checked_folder(project)
        images = _measure(project, run, experiments)
        _check_images(project, images, skip_bad)
        inputs = run.noted(_inputs(project, images, before))
        found = _split(project, images)
        _check_unchanged(project, before, hash_tables(project, run.hashes))
        tables = _tables_of(project, images, found)
        outputs = [data / name for name in tables]
        _replace(run, owned, tables)
        run.finish(
            data / PREPROCESS_MANIFEST,
            "preprocess",
            inputs,
            outputs,
            n_train=len(found.train),
            n_test=len(images.tables["test"]),
            n_bad=len(images.bad),
            near_duplicates=found.leaks["group"].nunique(),
        )
    _print(project, images, found, outputs)
    return found.by_target


@dataclass(frozen=True)
class _Images:
    """The images of both tables, measured.

    Attributes:
        tables: The tables ``train`` and ``test``.
        paths: The images, those of train first.
        ids: Columns ``data_type`` and id of each.
        facts: Their measurements.
    """

    tables: dict[str, pd.DataFrame]
    paths: Paths
    ids: pd.DataFrame
    facts: MeasuredImages

    @cached_property
    def bad(self) -> pd.DataFrame:
        """The images that cannot be read: data_type, id, problem."""
        problems = pd.Series(self.facts.problems, dtype=object)
        bad = problems.notna() & ~self.facts.unscaled
        return self.ids[bad].assign(problem=problems[bad]).reset_index(drop=True)

    @cached_property
    def good(self) -> npt.NDArray[np.int64]:
        """Numbers of the images that can be read."""
        return np.flatnonzero([problem is None for problem in self.facts.problems])


@dataclass(frozen=True)
class _Found:
    """The folds, and the tables computed with them.

    Attributes:
        train: The readable rows of the train table, with their folds.
        split: How they were split.
        info: Size and colours of each readable image.
        statistics: Those of all pixels.
        leaks: Near-identical images in different folds, or in train and test.
        by_target: The fold-by-target table.
        sizes: Numbers of each class; None without classes.
        warnings: Lines about the folds, for people.
    """

    train: pd.DataFrame
    split: Split
    info: pd.DataFrame
    statistics: pd.DataFrame
    leaks: pd.DataFrame
    by_target: pd.DataFrame
    sizes: ClassSizes | None
    warnings: list[str]


def _checked_folder(project: ProjectFolder) -> OwnedFiles:
    """Check the tables; return the list of the data folder.

    Raises:
        DataError: A table is wrong; one line per problem.
        OutputError: The folder has a file of the name of a result that preprocess did not write.
    """
    if problems := table_problems(project):
        raise DataError("\n".join(problems))
    owned = OwnedFiles(project.data_dir, PREPROCESS_FILES)
    owned.refuse_others([PREPROCESS_MANIFEST, IMG_INFO, STATS_BY_DATA, _fold_table_name(project)])
    return owned


def _fold_table_name(project: ProjectFolder) -> str:
    return project.fold_table.relative_to(project.data_dir).as_posix()


def _measure(project: ProjectFolder, run: StepRun, experiments: Sequence[Experiment]) -> _Images:
    """Read both tables and all images."""
    tables = {"train": read_train(project, with_bad=True), "test": read_test(project)}
    paths = image_paths(project, tables["train"]) + image_paths(project, tables["test"])
    facts = _read_images(project, paths, run.hashes, stored_heads(experiments))
    return _Images(tables, paths, _ids(project, tables), facts)


def _check_images(project: ProjectFolder, images: _Images, skip_bad: bool) -> None:
    """Make sure that all images can be read, or may be left out.

    Raises:
        DataError: Images cannot be read, or need an ``intensity_range``.
    """
    lines = [_bad_message(images.bad)] if len(images.bad) and not skip_bad else []
    without_scale = intensity_problem(project, images.paths, images.facts)
    if without_scale is not None:
        lines.append(without_scale)
    if lines:
        raise DataError("\n".join(lines))


def _inputs(project: ProjectFolder, images: _Images, before: Mapping[str, str]) -> Inputs:
    """Return the inputs of the results."""
    digests = digest_texts(images.facts.digests, images.facts.there)
    contents = hash_contents(images.paths, digests)
    return inputs_read(project, images.tables["train"], before, contents)


def _split(project: ProjectFolder, images: _Images) -> _Found:
    """Split the readable train rows into folds, and look for leaks between them."""
    ids, good = images.ids, images.good
    of_train = good[ids["data_type"].to_numpy()[good] == "train"]
    train = images.tables["train"].iloc[of_train].reset_index(drop=True)
    near = _near_duplicates(images.facts, good, len(train))
    merged = _merged(project, train, near)
    folds = split(project, train, merged)
    info = pd.concat([ids, images.facts.table], axis=1).iloc[good].reset_index(drop=True)
    info = info.astype({"height": int, "width": int})
    leaks = _leaks(project, info, folds.folds, near)
    with_folds = train.assign(**{FOLD_COLUMN: folds.folds})
    if merged is not None:
        with_folds[MERGED_COLUMN] = merged
    by_target, sizes = fold_table(project, with_folds), class_sizes(project, with_folds)
    warnings = fold_warnings(project, with_folds)
    statistics = statistics_by_data(info)
    return _Found(with_folds, folds, info, statistics, leaks, by_target, sizes, warnings)


def _tables_of(project: ProjectFolder, images: _Images, found: _Found) -> dict[str, pd.DataFrame]:
    """Return the tables that are written, by their names in the data folder."""
    optional = {BAD_IMAGES: images.bad, NEAR_DUPLICATES: found.leaks}
    return {
        IMG_INFO: found.info,
        STATS_BY_DATA: found.statistics,
        _fold_table_name(project): found.train,
    } | {name: table for name, table in optional.items() if len(table)}


def _replace(run: StepRun, owned: OwnedFiles, tables: Mapping[str, pd.DataFrame]) -> None:
    """Replace the results of an earlier run; a run that is killed here starts again."""
    run.begin_writing(owned, PREPROCESS_MANIFEST, tables, "preprocess")
    owned.remove(set(owned.of()) - {PREPROCESS_MANIFEST, *tables})
    for name in (*tables, PREPROCESS_MANIFEST, PREPROCESS_FILES):
        remove_leftovers_of(owned.folder / name)
    optional = (BAD_IMAGES, NEAR_DUPLICATES)
    # The fold table, which the project's other steps read, comes last.
    for name in sorted(tables, key=lambda name: name not in optional):
        write_csv(owned.folder / name, tables[name], index=name == STATS_BY_DATA)


def _print(project: ProjectFolder, images: _Images, found: _Found, outputs: list[Path]) -> None:
    n_test = len(images.tables["test"])
    logger.info(f"{counted(len(found.train), 'labelled image')}, {n_test} to predict")
    logger.info(found.statistics.loc[["mean_norm", "std_norm"]].round(4).to_string())
    if found.sizes is not None:
        logger.info(found.sizes.summary())
    logger.info(found.split.how)
    logger.info(fold_table_text(found.by_target))
    for path in outputs:
        logger.info(f"wrote {shown(path)}")
    _tell_forms(project, images.paths, images.facts)
    for note in found.warnings:
        logger.warning(note)
    _warn(project, images.bad, found.leaks)


def _tell_forms(project: ProjectFolder, paths: Paths, facts: MeasuredImages) -> None:
    """Print how deeper images were scaled, and of which files only a part was used."""
    more = np.flatnonzero(facts.more)
    if len(more):
        logger.info(
            "note: files with several pages or frames, of which the first is used: "
            f"{len(more)} (for instance {shown(paths[more[0]])})"
        )
    deep = np.flatnonzero(~np.isnan(facts.ranges[:, 0]))
    if project.intensity_range is None or not len(deep):
        return
    ranges, (darkest, brightest) = facts.ranges[deep], project.intensity_range
    lowest, highest = ranges[:, 0].min(), ranges[:, 1].max()
    outside = ranges[:, 2].mean()
    logger.info(
        f"images with more than 8 bits per channel: {len(deep)}; intensity_range "
        f"{range_text(project.intensity_range)} becomes 0 to 255; their values are {lowest:g} to "
        f"{highest:g}, {100 * outside:.2g} % of them outside and clipped"
    )
    used = (min(highest, brightest) - max(lowest, darkest)) / (brightest - darkest)
    if outside > _CLIPPED or used < _USED:
        worst = paths[deep[int(np.argmax(ranges[:, 2]))]]
        most = f"of {shown(worst)} {100 * ranges[:, 2].max():.2g} % are clipped"
        few = f"they take up {max(0, round(255 * used)) + 1} of its 256 steps"
        logger.warning(
            f"{PROJECT_FILE}: intensity_range does not fit the images: "
            f"{most if outside > _CLIPPED else few}; without it, preprocess proposes one"
        )


def _check_unchanged(
    project: ProjectFolder, before: Mapping[str, str], now: Mapping[str, str]
) -> None:
    for name in before:
        if now[name] != before[name]:
            raise DataError(
                f"{project.data_dir / name}: was changed while preprocess ran; run it again"
            )


def _ids(project: ProjectFolder, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    column = project.settings.id_column
    return pd.concat(
        [
            pd.DataFrame({"data_type": name, column: table[column]})
            for name, table in tables.items()
        ],
        ignore_index=True,
    )


def _read_images(
    project: ProjectFolder, paths: Paths, hashes: FileHashes, heads: Sequence[Compose]
) -> MeasuredImages:
    scale = project.intensity_range
    kept = KeptFacts(project.image_facts, scale)
    if not heads:
        return measured_images(paths, hashes, None, kept, scale)
    store = ImageStore(project.image_store, hashes, scale)
    with store.writer(heads) as writer:
        writer.announce(paths)
        return measured_images(paths, hashes, writer, kept, scale)


def _bad_message(bad: pd.DataFrame) -> str:
    lines = bad["problem"].head(_LISTED).tolist()
    if len(bad) > _LISTED:
        lines.append(f"... and {len(bad) - _LISTED} more images that cannot be read")
    counts = bad["data_type"].value_counts()
    lines.append(
        f"{counts.get('train', 0)} train and {counts.get('test', 0)} test images cannot be read; "
        "mend them, or leave them out with --skip-bad"
    )
    return "\n".join(lines)


@dataclass(frozen=True)
class _Near:
    """Groups of near-identical images, those of train first.

    Attributes:
        in_train: Links between images of train.
        in_all: Number of each image's group, shape (n,), links through test images included.
    """

    in_train: pd.DataFrame
    in_all: npt.NDArray[np.int64]


def _near_duplicates(facts: MeasuredImages, good: npt.NDArray[np.int64], n_train: int) -> _Near:
    links = near_duplicates(facts.hashes, facts.thumbnails, good)
    in_all = merged_groups(None, links, len(good))
    # Folds do not depend on the images to predict.
    return _Near(near_duplicates(facts.hashes, facts.thumbnails, good[:n_train]), in_all)


def _merged(project: ProjectFolder, train: pd.DataFrame, near: _Near) -> np.ndarray | None:
    """Join groups by near-identical images, if asked."""
    settings = project.settings
    if not settings.folds.merge_near_duplicates:
        return None
    groups = train[settings.group_column] if "Group" in settings.folds.method else None
    return merged_groups(groups, near.in_train, len(train))


def _leaks(
    project: ProjectFolder, info: pd.DataFrame, folds: np.ndarray, near: _Near
) -> pd.DataFrame:
    """Return the groups of near-identical images in different folds, or in train and test.

    Returns:
        A row per image, sorted by group. Columns: group, a number; the id; in, the fold or test.
    """
    # -1 stands for the test images, which come after those of train.
    fold = np.concatenate([folds, np.full(len(info) - len(folds), -1)])
    group = pd.Series(near.in_all)
    in_train = pd.Series(merged_groups(None, near.in_train, len(folds)))
    spread = pd.Series(folds).groupby(in_train).transform("nunique") > 1
    with_both = (group.map(pd.Series(fold < 0).groupby(group).nunique()) > 1).to_numpy()
    leaking = set(near.in_all[np.flatnonzero(spread)]) | set(near.in_all[with_both])
    rows = np.flatnonzero(group.isin(leaking).to_numpy())
    rows = rows[np.argsort(near.in_all[rows], kind="stable")]
    where = pd.Series(fold[rows]).astype(str).radd("fold ")
    column = project.settings.id_column
    # The id column may have either name.
    named = f"image_{column}" if column in ("group", "in") else column
    return pd.DataFrame(
        {
            "group": pd.factorize(near.in_all[rows])[0] + 1,
            named: info[column].to_numpy()[rows],
            "in": where.mask(fold[rows] < 0, "test").to_numpy(),
        }
    )


def _warn(project: ProjectFolder, bad: pd.DataFrame, leaks: pd.DataFrame) -> None:
    counts = bad["data_type"].value_counts().to_dict()
    if counts.get("train", 0):
        logger.warning(f"{counts['train']} train images cannot be read and are left out")
    if counts.get("test", 0):
        logger.warning(
            f"{counts['test']} test images cannot be read; they get the mean of the train targets"
        )
    if not len(leaks):
        return
    by_group = leaks["in"].groupby(leaks["group"])
    in_folds = leaks["in"].where(leaks["in"] != "test").groupby(leaks["group"]).nunique()
    between = int((in_folds > 1).sum())
    with_test = int(by_group.apply(lambda places: (places == "test").any()).sum())
    name = shown(project.data_dir / NEAR_DUPLICATES)
    if between and not project.settings.folds.merge_near_duplicates:
        logger.warning(
            "near-identical images are in different folds, which makes scores too good: "
            f"{counted(between, 'group')} of them (listed in {name}); folds: "
            "{merge_near_duplicates: true} in project.yml puts each into one fold"
        )
    if with_test:
        logger.warning(
            f"near-identical images are in train and test: {counted(with_test, 'group')} "
            f"of them (listed in {name})"
        )
