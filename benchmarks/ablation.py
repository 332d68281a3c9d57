"""From the published recipe to the recommended one, one change at a time, on two image sets.

Every row is a chain of experiments as YAML, run by `foldsmith run` in this process and kept: what
rows share is trained once, and a run that was stopped goes on. Rows are scored on out-of-fold
predictions, their blends cross-fitted; each is compared with the published recipe by paired
differences of squared errors, averaged over the seeds and resampled by group.

    python benchmarks/ablation.py --data artwork fgrade --fgrade DIR --seeds 1 2 3

The scale is one for two CPU cores, so that a row takes about two minutes: 48 px, ResNet10-T.
`--backbone`, `--size` and `--longer` make it larger.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import report
import yaml
from generated import ATMACUP, generate_photos

from foldsmith.blending.base import Goal, Rows
from foldsmith.blending.bootstrap import bootstrap, interval
from foldsmith.blending.crossfit import cross_fitted
from foldsmith.blending.methods import create_blend
from foldsmith.config import EnsembleSettings, Project
from foldsmith.data.tables import FOLD_COLUMN, read_folds, targets_of
from foldsmith.hashing import hash_value
from foldsmith.pipeline import run
from foldsmith.stages.manifest import read_manifest
from foldsmith.stages.members import groups_of
from foldsmith.stages.selection import LABELS
from foldsmith.tasks.metrics import RMSE

Tree = dict[str, Any]
Array = npt.NDArray[np.float64]

BASE = ATMACUP / "exp_config" / "base"


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        backbone: timm model.
        size: Side of the photos, px.
        longer: Factor of all numbers of epochs.
    """

    backbone: str
    size: int
    longer: float

    def epochs(self, n: int) -> int:
        """Return a number of epochs at this scale."""
        return max(1, round(n * self.longer))


@dataclass
class Row:
    """One recipe.

    Attributes:
        name: What has changed since the row before.
        pretraining: The pretraining, as a tree.
        members: Name -> fine-tuning or frozen-feature experiment, as a tree.
        criterion: Which epoch of each fold.
        blend: How the members are blended.
    """

    name: str
    pretraining: Tree
    members: dict[str, Tree] = field(default_factory=dict)
    criterion: str = "last"
    blend: str = "mean"


def published(scale: Scale) -> Row:
    """Return the published recipe, its numbers of epochs in their published proportion."""
    pretraining = {
        "import": str(BASE / "simsiam.yml"),
        "model/backbone/model_name": scale.backbone,
        "loader/train/batch_size": 64,
        "globals/max_epoch": scale.epochs(12),
    }
    classification = {
        "import": str(BASE / "classification.yml"),
        "globals/max_epoch": scale.epochs(6),
        "dataset/mixup": {"type": "Mixup", "alpha": 1.0, "start_epoch": 1, "end_epoch": -1},
    }
    regression = {"import": str(BASE / "regression.yml"), "globals/max_epoch": scale.epochs(8)}
    for member in (classification, regression):
        member["model/base_name"] = scale.backbone
    members = {"classification": classification, "regression": regression}
    return Row("published", pretraining, members, "metric", "box")


def changed(row: Row, name: str, change: Callable[[Row], None]) -> Row:
    """Return a copy of a row with one change."""
    copy = Row(
        name,
        dict(row.pretraining),
        {member: dict(tree) for member, tree in row.members.items()},
        row.criterion,
        row.blend,
    )
    change(copy)
    return copy


def set_up(folder: Path, data: str, fgrade: Path | None) -> Project:
    """Make the project of an image set, once."""
    if not (folder / "project.yml").is_file():
        (folder / "input").mkdir(parents=True, exist_ok=True)
        if data == "artwork":
            generate_photos(folder / "input", 800, 400, long_side=64)
            text = (ATMACUP / "project.yml").read_text(encoding="utf-8")
            text = text.replace("data_dir: input/atmaCup-11", "data_dir: input")
        else:
            if fgrade is None:
                sys.exit("--data fgrade needs --fgrade DIR (train.csv, test.csv, images/)")
            # Frames of a tomato are nearly alike: a fourth of them tells as much.
            order = ["tomato_id", "freshness", "image_id"]
            train = pd.read_csv(fgrade / "train.csv").sort_values(order).iloc[::4]
            train.to_csv(folder / "input/train.csv", index=False)
            pd.read_csv(fgrade / "test.csv").iloc[::4].to_csv(
                folder / "input/test.csv", index=False
            )
            (folder / "input/images").symlink_to((fgrade / "images").resolve())
            example = ATMACUP.parents[1] / "examples/fgrade/project.yml"
            text = example.read_text(encoding="utf-8")
            text = text.replace("data_dir: input/fgrade", "data_dir: input")
        (folder / "project.yml").write_text(text, encoding="utf-8")
    return Project.open(folder)


def write(project: Project, row: Row, seed: int, scale: Scale) -> tuple[Path, list[str]]:
    """Write the experiment files of a row; return the ensemble's, and the members' folders."""
    folder = project.folder / "exp_config"
    folder.mkdir(exist_ok=True)
    common = {"globals/seed": seed, "globals/resume_interval": 1000, "dataset/img_size": scale.size}

    def save(kind: str, tree: Tree, key: str) -> str:
        # By content, so that what rows share is one experiment.
        name = f"{kind}_{hash_value(tree)[:10]}"
        text = yaml.safe_dump(tree | {key: f"output/{name}"}, sort_keys=False)
        (folder / f"{name}.yml").write_text(text, encoding="utf-8")
        return name

    pretraining = common | {"loader/train/num_workers": 0} | row.pretraining
    epochs = pretraining["globals/max_epoch"]
    backbone = save("pre", pretraining, "globals/output_path")
    weights = f"output/{backbone}/backbone_epoch_{epochs}.pth"
    members = []
    for name, tree in row.members.items():
        tree = common | tree | {"model/pretrained": weights}
        if name == "frozen":
            tree.pop("globals/resume_interval")
        else:
            tree["loader/train/num_workers"] = 0
        members.append(save(name, tree, "globals/output_root"))
    blend = {
        "import": "foldsmith:ensemble.yml",
        "ensemble/criterion": row.criterion,
        "ensemble/methods": ["mean"],
        "ensemble/method": "simplex",
        "ensemble/experiments": [f"output/{name}" for name in members],
    }
    file = folder / f"{save('all', blend, 'globals/output_path')}.yml"
    return file, [f"output/{name}" for name in (backbone, *members)]


def seconds(project: Project, folders: list[str], criterion: str) -> float:
    """Return what the experiments of a row took, inference included."""
    total = 0.0
    for folder in map(project.path, folders):
        label = LABELS[criterion]  # type: ignore[index]
        for file in [
            *(folder / "manifest.json", folder / f"manifest_by_{label}.json"),
            *folder.glob("fold*/manifest.json"),
        ]:
            manifest = read_manifest(file)
            total += 0.0 if manifest is None else float(manifest.facts["wall_s"])
    return total


def oof_of(project: Project, row: Row, folders: list[str]) -> tuple[Array, dict[str, float]]:
    """Return the cross-fitted blend of a row, shape (n,), and the RMSE of each member."""
    label = LABELS[row.criterion]  # type: ignore[index]
    table = read_folds(project, None)
    targets = targets_of(project, table).astype(np.float64)
    predictions = np.stack(
        [
            np.load(project.path(folder) / f"oof_prediction_by_{label}.npy")[:, 0]
            for folder in folders[1:]
        ]
    )
    goal = Goal(RMSE, project.target_range, tuple(project.class_values))
    rows = Rows(predictions, np.empty((len(table), 0)))
    settings = EnsembleSettings(experiments=folders[1:])
    blend = create_blend(row.blend, goal, settings, 0)  # type: ignore[arg-type]
    blended = cross_fitted(blend, rows, targets, table[FOLD_COLUMN].to_numpy(dtype=np.int64))
    single = {
        name: RMSE(values, targets) for name, values in zip(row.members, predictions, strict=True)
    }
    return blended, single


def compare(project: Project, oof: dict[str, list[Array]]) -> pd.DataFrame:
    """Return RMSE, and change against the first row with its interval by group, of each row.

    The squared errors of a photo are averaged over the seeds before groups are resampled.
    """
    table = read_folds(project, None)
    targets = targets_of(project, table).astype(np.float64)
    groups = groups_of(project, table)
    # The RMSE of sqrt(mean squared error) against 0 is the pooled one of all seeds.
    pooled = {
        name: np.sqrt(np.mean([(p - targets) ** 2 for p in by_seed], axis=0))
        for name, by_seed in oof.items()
    }
    drawn = bootstrap(RMSE, pooled, np.zeros_like(targets), groups, seed=0)
    first = next(iter(pooled))
    records = []
    for name, errors in pooled.items():
        change = drawn[name] / drawn[first] - 1
        low, high = interval(change)
        value = float(np.sqrt((errors**2).mean()))
        by_seed = [RMSE(p, targets) for p in oof[name]]
        records.append((name, value, min(by_seed), max(by_seed), change.mean(), low, high))
    columns = ["row", "rmse", "lowest", "highest", "change", "low", "high"]
    return pd.DataFrame(records, columns=columns)


def main() -> None:
    """Run the rows, print the tables, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["artwork"], choices=["artwork", "fgrade"])
    parser.add_argument("--fgrade", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rows", nargs="+", help="Names of rows; the published one is always run.")
    parser.add_argument("--backbone", default="resnet10t")
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--longer", type=float, default=1.0)
    parser.add_argument("--folder", type=Path, default=Path("build/ablation"))
    arguments = parser.parse_args()
    scale = Scale(arguments.backbone, arguments.size, arguments.longer)
    rows = recipe_rows(scale)
    if arguments.rows:
        rows = [row for row in rows if row.name in ("published", *arguments.rows)]
    results = []
    for data in arguments.data:
        project = set_up(arguments.folder.resolve() / data, data, arguments.fgrade)
        oof: dict[str, list[Array]] = {row.name: [] for row in rows}
        walls: dict[str, list[float]] = {row.name: [] for row in rows}
        for seed in arguments.seeds:
            for row in rows:
                file, folders = write(project, row, seed, scale)
                run(project, file, keep_snapshots=True)
                blended, single = oof_of(project, row, folders)
                oof[row.name].append(blended)
                walls[row.name].append(seconds(project, folders, row.criterion))
                members = ", ".join(f"{name} {value:.4f}" for name, value in single.items())
                targets = targets_of(project, read_folds(project, None)).astype(np.float64)
                print(
                    f"== {data}, seed {seed}, {row.name}: {RMSE(blended, targets):.4f} "
                    f"({members}), {walls[row.name][-1]:.0f} s",
                    flush=True,
                )
        table = compare(project, oof).assign(seconds=[np.mean(walls[row.name]) for row in rows])
        print(f"\n{data}, {len(arguments.seeds)} seeds")
        print(table.to_string(index=False, float_format=lambda value: f"{value:.4f}"), flush=True)
        results.append({"data": data, "rows": json.loads(table.to_json(orient="records"))})
    report.write("ablation", results)


def recipe_rows(scale: Scale) -> list[Row]:
    """Return the rows of the table, each a change of the one before."""
    rows = [published(scale)]

    def add(name: str, change: Callable[[Row], None]) -> None:
        rows.append(changed(rows[-1], name, change))

    def last_epoch(row: Row) -> None:
        row.criterion, row.blend = "last", "mean"

    add("last epoch, plain mean", last_epoch)

    def cosine(row: Row) -> None:
        row.pretraining = {
            "import": "foldsmith:simsiam_cosine.yml",
            "model/backbone/model_name": scale.backbone,
            "loader/train/batch_size": 64,
            "globals/max_epoch": scale.epochs(12),
            "probe": None,
            "model/projection_layers": 2,
            "model/projection_dim": None,
            "model/prediction_hidden": None,
        }

    add("SimSiam with a cosine schedule", cosine)

    def average(row: Row) -> None:
        for tree in row.members.values():
            tree["globals/ema_decay"] = 0.99

    add("average of the weights", average)

    def head_first(row: Row) -> None:
        for tree in row.members.values():
            tree["globals/head_epochs"] = scale.epochs(2)

    add("head first", head_first)

    def frozen(row: Row) -> None:
        row.members["frozen"] = {
            "import": "foldsmith:frozen_features.yml",
            "model/base_name": scale.backbone,
        }

    add("frozen features as a member", frozen)
    return rows


if __name__ == "__main__":
    main()
