"""Stage 1: image statistics and folds."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.config import Experiment
from foldsmith.data.cache.image_facts import KeptFacts
from foldsmith.data.cache.image_store import PhotoStore
from foldsmith.data.fold_table import (
    class_sizes,
    fold_table,
    fold_table_text,
    fold_warnings,
    split,
)
from foldsmith.data.image_table import IMG_INFO, STATS_BY_DATA
from foldsmith.data.intensity import range_text
from foldsmith.data.near_duplicates import NEAR_DUPLICATES, merged_groups, near_duplicates
from foldsmith.data.statistics import (
    PhotoFacts,
    intensity_problem,
    photo_facts,
    statistics_by_data,
)
from foldsmith.data.table_checks import table_problems
from foldsmith.data.transforms import Compose
from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.project_file import PROJECT_FILE
from foldsmith.project.tables import (
    BAD_PHOTOS,
    FOLD_COLUMN,
    MERGED_COLUMN,
    photo_paths,
    read_test,
    read_train,
)
from foldsmith.steps.fingerprint import hash_contents, hash_tables, inputs_read
from foldsmith.steps.image_store import stored_heads
from foldsmith.steps.manifest import PREPROCESS_MANIFEST, Stopwatch, write_manifest
from foldsmith.steps.output_folder import shown
from foldsmith.utils.atomic import remove_leftovers_of, write_csv
from foldsmith.utils.formatting import counted
from foldsmith.utils.hashing import FileHashes, digest_texts
from foldsmith.utils.locking import lock
from foldsmith.utils.owned_files import OwnedFiles
from foldsmith.utils.path_list import Paths

logger = logging.getLogger(__name__)

# The list of what preprocess has written, in a folder that is not foldsmith's.
PREPROCESS_FILES = "preprocess_files.json"

# An intensity range that clips a larger share of the values, or of which they take up a smaller
# part, does not fit.
_CLIPPED, _USED = 0.02, 0.25

# Bad photos that an error lists; all of them are in the file that --skip-bad writes.
_LISTED = 20


def preprocess(
    project: ProjectFolder, skip_bad: bool = False, experiments: Sequence[Experiment] = ()
) -> pd.DataFrame:
    """Measure every photo and split the labelled ones into folds.

    Writes into the data folder ``img_info.csv`` (size, channel means and standard deviations
    of each photo, 0..255), ``stats_by_data.csv`` (those of all pixels, of train's and of
    test's), the fold table (the train table plus the column ``fold``) and, where there are
    any, ``near_duplicates.csv`` (near-identical photos in different folds, or in train and
    test) and ``bad_photos.csv`` (those that were left out).

    Args:
        project: The project.
        skip_bad: Leave out photos that cannot be read: train photos are not trained on, test
            photos are predicted as the mean of the train targets.
        experiments: Trainings whose photos are decoded into the photo store on the way.

    Returns:
        The fold-by-target table.

    Raises:
        DataError: One line per problem of the tables and photos; a table was changed meanwhile.
        OutputError: Another process is at it, or the data folder has a file of the name of a
            result that preprocess did not write.
    """
    watch = Stopwatch()
    with lock(project.data_dir / PREPROCESS_MANIFEST):
        return _preprocess(project, skip_bad, experiments, watch)


def _preprocess(
    project: ProjectFolder, skip_bad: bool, experiments: Sequence[Experiment], watch: Stopwatch
) -> pd.DataFrame:
    data = project.data_dir
    owned = OwnedFiles(data, PREPROCESS_FILES)
    hashes = FileHashes(project.hash_store)
    # Before anything is read: what is changed later is not what the results are made from.
    before = hash_tables(project, hashes)
    problems = table_problems(project)
    if problems:
        raise DataError("\n".join(problems))
    table_name = project.fold_table.relative_to(data).as_posix()
    owned.refuse_others([PREPROCESS_MANIFEST, IMG_INFO, STATS_BY_DATA, table_name])
    tables = {"train": read_train(project, with_bad=True), "test": read_test(project)}
    paths = photo_paths(project, tables["train"]) + photo_paths(project, tables["test"])
    ids = _ids(project, tables)
    facts = _read_photos(project, paths, hashes, stored_heads(experiments))
    bad = _bad_photos(ids, facts)
    lines = [_bad_message(bad)] if len(bad) and not skip_bad else []
    without_scale = intensity_problem(project, paths, facts)
    if without_scale is not None:
        lines.append(without_scale)
    if lines:
        raise DataError("\n".join(lines))
    photos = hash_contents(paths, digest_texts(facts.digests, facts.there))
    inputs = inputs_read(project, tables["train"], before, photos)
    hashes.save()
    good = ids[[problem is None for problem in facts.problems]].index.to_numpy()
    outputs = [data / IMG_INFO, data / STATS_BY_DATA, project.fold_table]

    of_train = good[ids["data_type"].to_numpy()[good] == "train"]
    train = tables["train"].iloc[of_train].reset_index(drop=True)
    near = _near_duplicates(facts, good, len(train))
    merged = _merged(project, train, near)
    folds = split(project, train, merged)
    info = pd.concat([ids, facts.table], axis=1).iloc[good].reset_index(drop=True)
    info = info.astype({"height": int, "width": int})
    statistics = statistics_by_data(info)
    leaks = _leaks(project, info, folds.folds, near)
    with_folds = train.assign(**{FOLD_COLUMN: folds.folds})
    if merged is not None:
        with_folds[MERGED_COLUMN] = merged
    # All that can fail comes before the manifest: what it says is done is whole.
    table, sizes = fold_table(project, with_folds), class_sizes(project, with_folds)
    notes = fold_warnings(project, with_folds)
    _check_unchanged(project, before, hash_tables(project, hashes))

    # From here on the old results are none; a run that is killed below starts again.
    optional = {name: some for name, some in ((BAD_PHOTOS, bad), (NEAR_DUPLICATES, leaks))}
    outputs += [data / name for name, listed in optional.items() if len(listed)]
    names = [path.relative_to(data).as_posix() for path in outputs]
    earlier = owned.of()
    owned.record([PREPROCESS_MANIFEST, *names], "preprocess")
    (data / PREPROCESS_MANIFEST).unlink(missing_ok=True)
    owned.remove(set(earlier) - {PREPROCESS_MANIFEST, *names})
    for path in (*outputs, data / PREPROCESS_MANIFEST, data / PREPROCESS_FILES):
        remove_leftovers_of(path)
    for name, listed in optional.items():
        if len(listed):
            write_csv(data / name, listed)
    write_csv(data / IMG_INFO, info)
    write_csv(data / STATS_BY_DATA, statistics, index=True)
    write_csv(project.fold_table, with_folds)
    write_manifest(
        data / PREPROCESS_MANIFEST,
        "preprocess",
        inputs,
        outputs,
        hashes,
        n_train=len(train),
        n_test=len(tables["test"]),
        n_bad=len(bad),
        near_duplicates=leaks["group"].nunique(),
        wall_s=watch.seconds,
    )
    logger.info(f"{counted(len(train), 'labelled photo')}, {len(tables['test'])} to predict")
    logger.info(statistics.loc[["mean_norm", "std_norm"]].round(4).to_string())
    if sizes is not None:
        logger.info(sizes.summary())
    logger.info(folds.how)
    logger.info(fold_table_text(table))
    for path in outputs:
        logger.info(f"wrote {shown(path)}")
    _tell_forms(project, paths, facts)
    for note in notes:
        logger.warning(note)
    _warn(project, bad, leaks)
    return table


def _tell_forms(project: ProjectFolder, paths: Paths, facts: PhotoFacts) -> None:
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


def _read_photos(
    project: ProjectFolder, paths: Paths, hashes: FileHashes, heads: Sequence[Compose]
) -> PhotoFacts:
    scale = project.intensity_range
    kept = KeptFacts(project.photo_facts, scale)
    if not heads:
        return photo_facts(paths, hashes, None, kept, scale)
    store = PhotoStore(project.photo_store, hashes, scale)
    with store.writer(heads) as writer:
        writer.announce(paths)
        return photo_facts(paths, hashes, writer, kept, scale)


def _bad_photos(ids: pd.DataFrame, facts: PhotoFacts) -> pd.DataFrame:
    problems = pd.Series(facts.problems, dtype=object)
    bad = problems.notna() & ~facts.unscaled
    return ids[bad].assign(problem=problems[bad]).reset_index(drop=True)


def _bad_message(bad: pd.DataFrame) -> str:
    lines = bad["problem"].head(_LISTED).tolist()
    if len(bad) > _LISTED:
        lines.append(f"... and {len(bad) - _LISTED} more photos that cannot be read")
    counts = bad["data_type"].value_counts()
    lines.append(
        f"{counts.get('train', 0)} train and {counts.get('test', 0)} test photos cannot be read; "
        "mend them, or leave them out with --skip-bad"
    )
    return "\n".join(lines)


@dataclass(frozen=True)
class _Near:
    """Groups of near-identical photos, those of train first.

    Attributes:
        in_train: Links between photos of train.
        in_all: Number of each photo's group, shape (n,), links through test photos included.
    """

    in_train: pd.DataFrame
    in_all: npt.NDArray[np.int64]


def _near_duplicates(facts: PhotoFacts, good: npt.NDArray[np.int64], n_train: int) -> _Near:
    links = near_duplicates(facts.hashes, facts.thumbnails, good)
    in_all = merged_groups(None, links, len(good))
    # Folds do not depend on the photos to predict.
    return _Near(near_duplicates(facts.hashes, facts.thumbnails, good[:n_train]), in_all)


def _merged(project: ProjectFolder, train: pd.DataFrame, near: _Near) -> np.ndarray | None:
    """Join groups by near-identical photos, if asked."""
    settings = project.settings
    if not settings.folds.merge_near_duplicates:
        return None
    groups = train[settings.group_column] if "Group" in settings.folds.method else None
    return merged_groups(groups, near.in_train, len(train))


def _leaks(
    project: ProjectFolder, info: pd.DataFrame, folds: np.ndarray, near: _Near
) -> pd.DataFrame:
    """Return the groups of near-identical photos in different folds, or in train and test.

    Returns:
        A row per photo, sorted by group. Columns: group, a number; the id; in, the fold or test.
    """
    # -1 stands for the test photos, which come after those of train.
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
    named = f"photo_{column}" if column in ("group", "in") else column
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
        logger.warning(f"{counts['train']} train photos cannot be read and are left out")
    if counts.get("test", 0):
        logger.warning(
            f"{counts['test']} test photos cannot be read; they get the mean of the train targets"
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
            "near-identical photos are in different folds, which makes scores too good: "
            f"{counted(between, 'group')} of them (listed in {name}); folds: "
            "{merge_near_duplicates: true} in project.yml puts each into one fold"
        )
    if with_test:
        logger.warning(
            f"near-identical photos are in train and test: {counted(with_test, 'group')} "
            f"of them (listed in {name})"
        )
