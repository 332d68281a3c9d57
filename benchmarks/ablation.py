"""From the published recipe to the recommended one, one change at a time.

Every row is a chain of experiments as YAML, run by `foldsmith run` in this process and kept: what
rows share is trained once, and a run that was stopped goes on. Rows are scored on out-of-fold
predictions, their blends cross-fitted; each is compared with the first row of its table by paired
differences of squared errors, averaged over the seeds and resampled by group.

    python benchmarks/ablation.py --data artwork fgrade digits --fgrade DIR --seeds 1 2 3
    python benchmarks/ablation.py --data artwork fgrade --fgrade DIR --table alone
    python benchmarks/ablation.py --write docs/recipe.md

Tables: `recipe` goes from the published recipe to the recommended one; `alone` changes one thing
of the published regression alone, which is where what did not help can be seen; `known` teaches
it what else is known of artworks. `--write` puts what was measured into a document, between its
marks.

Image sets: `artwork`, 800 generated images; `fgrade`, every fourth image of FGrade; `digits`,
900 handwritten digits (of scikit-learn) whose closed loops are to be counted, a set that no
choice of the recipe was made on.

The scale is one for two CPU cores, so that a row takes about three minutes on one of them: 48 px,
ResNet10-T. `--backbone`, `--size` and `--longer` make it larger.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import report
import yaml
from generated import ATMACUP
from image_sets import set_up

from foldsmith.blending.base import Goal, Rows
from foldsmith.blending.bootstrap import bootstrap, interval
from foldsmith.blending.crossfit import cross_fitted
from foldsmith.blending.methods import create_blend
from foldsmith.config import Checkpoint, EnsembleSettings
from foldsmith.config.imports import RECIPES
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import FOLD_COLUMN, groups_of, read_folds, targets_of
from foldsmith.run.engine import run
from foldsmith.steps.checkpoint_choice import LABELS, read_inference
from foldsmith.steps.manifest import read_manifest
from foldsmith.targets.metrics import RMSE
from foldsmith.utils.hashing import hash_value

Tree = dict[str, Any]
Array = npt.NDArray[np.float64]

BASE = ATMACUP / "exp_config" / "base"


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        backbone: timm model.
        size: Side of the images, px.
        longer: Factor of all numbers of epochs.
    """

    backbone: str
    size: int
    longer: float

    def epochs(self, n: int) -> int:
        """Return a number of epochs at this scale."""
        return max(1, round(n * self.longer))


# Members that train no backbone.
FROZEN = ("frozen", "descriptors")


@dataclass
class Row:
    """One recipe.

    Attributes:
        name: What has changed.
        pretraining: The pretraining, as a tree.
        members: Name -> fine-tuning or frozen-feature experiment, as a tree.
        checkpoint: Which epoch of each fold.
        blend: How the members are blended.
    """

    name: str
    pretraining: Tree
    members: dict[str, Tree] = field(default_factory=dict)
    checkpoint: str = "last"
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
        row.checkpoint,
        row.blend,
    )
    change(copy)
    return copy


def write(project: ProjectFolder, row: Row, seed: int, scale: Scale) -> tuple[Path, list[str]]:
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
        tree = common | tree
        if name != "descriptors":
            tree["model/pretrained"] = weights
        if name in FROZEN:
            tree.pop("globals/resume_interval")
        else:
            tree["loader/train/num_workers"] = 0
        members.append(save(name, tree, "globals/output_root"))
    blend = {
        "import": "foldsmith:ensemble.yml",
        "ensemble/checkpoint": row.checkpoint,
        "ensemble/methods": ["mean"],
        "ensemble/method": "simplex",
        "ensemble/experiments": [f"output/{name}" for name in members],
    }
    file = folder / f"{save('all', blend, 'globals/output_path')}.yml"
    return file, [f"output/{name}" for name in (backbone, *members)]


def seconds(project: ProjectFolder, folders: list[str], checkpoint: str) -> float:
    """Return what the experiments of a row took, inference included."""
    total = 0.0
    for folder in map(project.path, folders):
        label = LABELS[checkpoint]  # type: ignore[index]
        for file in [
            *(folder / "manifest.json", folder / f"manifest_by_{label}.json"),
            *folder.glob("fold*/manifest.json"),
        ]:
            manifest = read_manifest(file)
            total += 0.0 if manifest is None else float(manifest.facts["wall_s"])
    return total


def oof_of(project: ProjectFolder, row: Row, folders: list[str]) -> tuple[Array, dict[str, float]]:
    """Return the cross-fitted blend of a row, shape (n,), and the RMSE of each member."""

    def label_of(folder: str) -> str:
        asked: Checkpoint = row.checkpoint  # type: ignore[assignment]
        return LABELS[read_inference(project.path(folder), asked)[0]]

    table = read_folds(project, None)
    targets = targets_of(project, table).astype(np.float64)
    predictions = np.stack(
        [
            np.load(project.path(folder) / f"oof_prediction_by_{label_of(folder)}.npy")[:, 0]
            for folder in folders[1:]
        ]
    )
    goal = Goal(RMSE, project.form)
    rows = Rows(predictions, np.empty((len(table), 0)))
    settings = EnsembleSettings(experiments=folders[1:])
    blend = create_blend(row.blend, goal, settings, 0)  # type: ignore[arg-type]
    blended = cross_fitted(blend, rows, targets, table[FOLD_COLUMN].to_numpy(dtype=np.int64))
    single = {
        name: RMSE(values, targets) for name, values in zip(row.members, predictions, strict=True)
    }
    return blended, single


def compare(project: ProjectFolder, oof: dict[str, list[Array]]) -> pd.DataFrame:
    """Return RMSE, and change against the first row with its interval by group, of each row.

    The squared errors of an image are averaged over the seeds before groups are resampled.
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


def recipe_rows(scale: Scale) -> list[Row]:
    """Return the rows from the published recipe to the recommended one, each a change more."""
    rows = [published(scale)]

    def add(name: str, change: Callable[[Row], None]) -> None:
        rows.append(changed(rows[-1], name, change))

    def last_epoch(row: Row) -> None:
        row.checkpoint, row.blend = "last", "simplex"

    add("last epochs, weights that sum to 1", last_epoch)

    def frozen(row: Row) -> None:
        row.members["frozen"] = {
            "import": "foldsmith:recommended_frozen.yml",
            "model/base_name": scale.backbone,
        }

    add("+ heads on frozen features", frozen)

    def descriptors(row: Row) -> None:
        row.members["descriptors"] = {
            "import": "foldsmith:image_descriptors.yml",
            "dataset/img_size": 2 * scale.size,
        }

    add("+ heads on image descriptors", descriptors)

    def distribution(row: Row) -> None:
        del row.members["classification"]
        for name, epochs in (("regression", 7), ("distribution", 5)):
            row.members[name] = {
                "import": f"foldsmith:recommended_{name}.yml",
                "model/base_name": scale.backbone,
                # Fewer epochs pay for the members on features.
                "globals/max_epoch": scale.epochs(epochs),
            }

    add("label distribution in the place of classification: recommended", distribution)
    return rows


def alone_rows(scale: Scale) -> list[Row]:
    """Return the published regression alone, and single changes of it."""
    first = published(scale)
    regression = first.members["regression"]
    start = Row("published regression alone, last epoch", first.pretraining, {"it": regression})
    rows = [start]

    def add(name: str, pretraining: Tree | None = None, **values: Any) -> None:
        tree = regression | {key.replace("__", "/"): value for key, value in values.items()}
        rows.append(Row(name, pretraining or first.pretraining, {"it": tree}))

    def method(name: str, **values: Any) -> Tree:
        return {
            "import": f"foldsmith:{name}.yml",
            "model/backbone/model_name": scale.backbone,
            "loader/train/batch_size": 64,
            "globals/max_epoch": scale.epochs(12),
            "probe": None,
        } | values

    same_heads = {
        "model/num_mlp_layers": 2,
        "model/out_dim": None,
        "model/pred_hidden_dim": None,
    }
    add("average of the weights (EMA)", globals__ema_decay=0.99)
    add("head first (LP-FT)", globals__head_epochs=scale.epochs(2))
    add("mixup", dataset__mixup={"type": "Mixup", "alpha": 0.4, "start_epoch": 1, "end_epoch": -1})
    plain = yaml.safe_load((RECIPES / "multi_class.yml").read_text(encoding="utf-8"))
    add("gentle augmentation", dataset__train__transforms=plain["dataset"]["train"]["transforms"])
    add("SimSiam with a cosine schedule", method("simsiam_cosine", **same_heads))
    add("twice as long", globals__max_epoch=scale.epochs(16))
    add("head begins as a ridge regression", globals__head_init="ridge")
    add("SimCLR", method("simclr"))
    return rows


def known_rows(scale: Scale) -> list[Row]:
    """Return the published regression alone, and what else is known of artworks beside it."""
    first = published(scale)
    regression = first.members["regression"]
    distribution = regression | {
        "globals/task": "hl-gauss",
        "loss": {"type": "CrossEntropyLoss"},
    }
    changes = {
        "published regression alone, last epoch": regression,
        "+ auxiliary heads: materials, techniques, date": regression
        | {"globals/auxiliary": {"materials": 0.3, "techniques": 0.3, "date": 0.3}},
        "distribution of the target": distribution,
        "distribution of the date": distribution | {"globals/continuous_target": True},
    }
    return [Row(name, first.pretraining, {"it": tree}) for name, tree in changes.items()]


TABLES = {"recipe": recipe_rows, "alone": alone_rows, "known": known_rows}


def main() -> None:
    """Run the rows, print the tables, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", nargs="+", default=[], choices=["artwork", "fgrade", "digits"])
    parser.add_argument("--fgrade", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--table", default="recipe", choices=list(TABLES))
    parser.add_argument("--rows", nargs="+", help="Names of rows; the first one is always run.")
    parser.add_argument("--backbone", default="resnet10t")
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--longer", type=float, default=1.0)
    parser.add_argument("--folder", type=Path, default=Path("build/ablation"))
    parser.add_argument("--write", type=Path, help="Document to put the measured tables into.")
    arguments = parser.parse_args()
    for data in arguments.data:
        measure(data, arguments)
    if arguments.write is not None:
        write_document(arguments.write, arguments.folder)


def measure(data: str, arguments: argparse.Namespace) -> None:
    """Run the rows of one table on one image set; print and keep what was found."""
    scale = Scale(arguments.backbone, arguments.size, arguments.longer)
    rows = TABLES[arguments.table](scale)
    if arguments.rows:
        rows = [row for row in rows if row in rows[:1] or row.name in arguments.rows]
    project = set_up(arguments.folder.resolve() / data, data, arguments.fgrade)
    oof: dict[str, list[Array]] = {row.name: [] for row in rows}
    walls: dict[str, list[float]] = {row.name: [] for row in rows}
    singles: dict[str, list[dict[str, float]]] = {row.name: [] for row in rows}
    for seed in arguments.seeds:
        for row in rows:
            file, folders = write(project, row, seed, scale)
            run(project, file, keep_snapshots=True)
            blended, single = oof_of(project, row, folders)
            oof[row.name].append(blended)
            singles[row.name].append(single)
            walls[row.name].append(seconds(project, folders, row.checkpoint))
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
    result = {
        "data": data,
        "table": arguments.table,
        "scale": vars(scale),
        "seeds": arguments.seeds,
        "images": len(next(iter(oof.values()))[0]),
        "groups": int(groups_of(project, read_folds(project, None)).max()) + 1,
        "rows": json.loads(table.to_json(orient="records")),
        "members": {
            name: {member: float(np.mean([s[member] for s in found])) for member in found[0]}
            for name, found in singles.items()
        },
    }
    report.write(f"ablation_{arguments.table}_{data}", [result])


def write_document(document: Path, folder: Path) -> None:
    """Put the measured tables into a document, between the marks that it has for them."""
    text = document.read_text(encoding="utf-8")
    for file in sorted(report.FOLDER.glob("ablation_*.json")):
        result = json.loads(file.read_text(encoding="utf-8"))["results"][0]
        name = f"{result['table']} {result['data']}"
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        if begin in text and end in text:
            before, _, rest = text.partition(begin)
            text = f"{before}{begin}\n{markdown(result)}\n{end}{rest.partition(end)[2]}"
            print(f"wrote {name} into {document}")
    document.write_text(text, encoding="utf-8")


def markdown(result: dict[str, Any]) -> str:
    """Return one measured table."""
    # Single changes are not meant to take the same time.
    timed = result["table"] == "recipe"
    lines = [
        f"{result['images']} images in {result['groups']} groups, seeds "
        f"{', '.join(map(str, result['seeds']))}; {result['scale']['size']} px, "
        f"{result['scale']['backbone']}",
        "",
        "| | RMSE | lowest, highest seed | change | 95 % of resamples |"
        + (" seconds |" if timed else ""),
        "|---|---|---|---|---|" + ("---|" if timed else ""),
    ]
    for k, row in enumerate(result["rows"]):
        change = "" if k == 0 else f"{row['change']:+.1%}"
        between = "" if k == 0 else f"{row['low']:+.1%} to {row['high']:+.1%}"
        lines.append(
            f"| {row['row']} | {row['rmse']:.4f} | {row['lowest']:.4f}, {row['highest']:.4f} | "
            f"{change} | {between} |" + (f" {row['seconds']:.0f} |" if timed else "")
        )
    members = [
        f"{name}: " + ", ".join(f"{member} {value:.4f}" for member, value in found.items())
        for name, found in result["members"].items()
        if len(found) > 1
    ]
    if members:
        lines += ["", "Members alone, means of the seeds: " + "; ".join(members) + "."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
