"""Stage 1: image statistics and folds."""

import pandas as pd

from foldsmith.atomic import write_csv
from foldsmith.config import Project
from foldsmith.data.folds import assign_folds
from foldsmith.data.statistics import IMG_INFO, STATS_BY_DATA, image_table, statistics_by_data
from foldsmith.data.tables import FOLD_COLUMN, photo_paths, read_test, read_train
from foldsmith.stages.output_folder import shown


def preprocess(project: Project) -> pd.DataFrame:
    """Measure every photo and split the labelled ones into folds.

    Writes into the data folder ``img_info.csv`` (size, channel means and standard deviations
    of each photo, 0..255), ``stats_by_data.csv`` (those of all pixels, of train's and of
    test's) and the fold table (the train table plus the column ``fold``).

    Args:
        project: The project.

    Returns:
        The fold-by-target table.

    Raises:
        DataError: A table or a photo is wrong, or the folds cannot be filled.
    """
    settings = project.settings
    tables = {"train": read_train(project), "test": read_test(project)}
    train = tables["train"]
    groups = train[settings.group_column] if settings.group_column else None
    # Before the photos: what is wrong with the folds should not cost a pass over the files.
    folds = assign_folds(settings.folds, train[settings.target_column], groups)

    ids = pd.concat(
        [
            pd.DataFrame({"data_type": name, settings.id_column: table[settings.id_column]})
            for name, table in tables.items()
        ],
        ignore_index=True,
    )
    paths = [path for table in tables.values() for path in photo_paths(project, table)]
    info = pd.concat([ids, image_table(paths)], axis=1)
    statistics = statistics_by_data(info)

    write_csv(project.data_dir / IMG_INFO, info)
    write_csv(project.data_dir / STATS_BY_DATA, statistics, index=True)
    with_folds = train.assign(**{FOLD_COLUMN: folds})
    write_csv(project.fold_table, with_folds)

    table = pd.crosstab(with_folds[FOLD_COLUMN], _shown_target(train[settings.target_column]))
    table["photos"] = table.sum(axis=1)
    if groups is not None:
        table["groups"] = groups.groupby(folds).nunique()
    print(f"{len(train)} labelled photos, {len(tables['test'])} to predict")
    print(statistics.loc[["mean_norm", "std_norm"]].round(4).to_string())
    print(f"folds by {settings.folds.method}:")
    print(table.to_string())
    for name in (project.data_dir / IMG_INFO, project.data_dir / STATS_BY_DATA, project.fold_table):
        print(f"wrote {shown(name)}")
    return table


def _shown_target(targets: pd.Series) -> pd.Series:
    """Return the targets as they are, or quartiles of them if there are too many to list."""
    if targets.nunique() <= 20:
        return targets
    return pd.Series(pd.qcut(targets, 4, duplicates="drop").astype(str), name="target")
