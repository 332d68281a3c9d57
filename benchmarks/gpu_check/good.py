"""Is it good: the recommended recipe against the published one, out of fold, at equal time.

Both train the same backbone at the same size on the same folds, each with as many epochs as its
share of the time allows, in the proportions of its own files. The recommended recipe is that of
``time: medium``; the published one is the bundled project's, adapted by overrides alone.

Images: ``--images DIR`` with train.csv (image_id, tomato_id, freshness), test.csv and images/, of
which every fourth is taken as in ``benchmarks/ablation.py``; generated ones if left out.
"""

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pandas as pd
from figures import Figures
from generated import ATMACUP, generate_images
from image_sets import make_fgrade

from foldsmith import Project
from foldsmith.api import override_texts
from foldsmith.steps.manifest import MANIFEST, read_manifest
from foldsmith.steps.preprocess import preprocess
from foldsmith.steps.pretrain import pretrain
from foldsmith.steps.train_command import train

COLUMNS = ("image_id", "tomato_id", "freshness")

# Seconds of a fold beside its epochs (models, loader processes, snapshots), of everything that
# follows the trainings, and the share of the time that epochs are planned to fill: guesses, which
# keep a recipe within its time.
_FOLD_S, _END_S, _FILL = 2.0, 20.0, 0.85


@dataclass
class Recipe:
    """A recipe, and where its time goes.

    Attributes:
        name: For people.
        pretraining: Its experiment.
        members: Its fine-tunings, with the numbers of epochs that their files have.
        ensemble: The experiment that blends them.
        shared: Overrides of all of its experiments.
        pretraining_share: Share of the time for the pretraining.
        kept: Path of the pretraining's last backbone by its epoch, if fine-tunings name the file.
        epochs: Overrides of the numbers of epochs, as far as they are chosen.
    """

    name: str
    pretraining: str
    members: dict[str, int]
    ensemble: str
    shared: dict[str, object]
    pretraining_share: float = 0.4
    kept: str | None = None
    epochs: dict[str, object] = field(default_factory=dict)

    @property
    def overrides(self) -> dict[str, object]:
        """All overrides of a run."""
        return self.shared | self.epochs


def main() -> None:
    """Run both recipes and compare their scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=float, required=True)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--rehearse", action="store_true")
    arguments = parser.parse_args()
    until = time.monotonic() + arguments.limit
    figures = Figures(arguments.out)
    with tempfile.TemporaryDirectory() as folder, quiet(arguments.out.with_suffix(".runs.log")):
        project = project_of(Path(folder) / "project", arguments.images, arguments.rehearse)
        preprocess(project)
        recipes = [recommended(arguments.rehearse), published(arguments.rehearse)]
        seconds = measured_epochs(project, recipes[0])
        figures.add(what="epoch", seconds=seconds)
        rows: list[dict[str, Any]] = []
        for number, recipe in enumerate(recipes):
            budget = 0.0
            if not arguments.rehearse:
                budget = (until - time.monotonic() - 4) / (len(recipes) - number)
                # What the first has left of its time is no gift to the second.
                budget = min([budget, *(row["seconds"] for row in rows)])
            row = run(project, recipe, seconds, budget)
            rows.append(row)
            figures.add(what="recipe", **row)
            figures.line(
                f"{row['recipe']}: out-of-fold RMSE {row['rmse']:.4f} ({row['blend']}) after "
                f"{row['seconds']:.0f} s; epochs {row['epochs']}; members "
                + ", ".join(f"{name} {score:.4f}" for name, score in row["members"].items())
            )
        difference = rows[0]["rmse"] - rows[1]["rmse"]
        figures.add(what="difference", rmse=difference)
        figures.line(f"recommended against published: {difference:+.4f} RMSE (lower is better)")


def project_of(folder: Path, images: Path | None, small: bool) -> Project:
    """Return a project with the experiments of both recipes, nothing done yet."""
    data = folder / "input"
    data.mkdir(parents=True)
    if images is None:
        n_train, n_test, side = (24, 6, 40) if small else (900, 300, 160)
        generate_images(data, n_train, n_test, long_side=side)
        text = (ATMACUP / "project.yml").read_text(encoding="utf-8")
        text = text.replace("data_dir: input/atmaCup-11", "data_dir: input")
        text = text.replace("time: large", "time: medium")
    else:
        missing = set(COLUMNS) - set(pd.read_csv(images / "train.csv", nrows=1).columns)
        if missing:
            sys.exit(f"error: {images / 'train.csv'}: has no column {', '.join(sorted(missing))}")
        text = make_fgrade(data, images) + "time: medium\n"
    if small:
        text = text.replace("n_splits: 5", "n_splits: 2").replace("n_splits: 4", "n_splits: 2")
    (folder / "project.yml").write_text(text, encoding="utf-8")
    theirs = ATMACUP / "exp_config"
    shutil.copytree(theirs / "base", folder / "exp_config" / "base")
    more = () if small else ("400", "420")
    for name in ("000", "100", "200", "900", "300", "401", "410", "901", *more):
        shutil.copy(theirs / f"{name}.yml", folder / "exp_config" / f"{name}.yml")
    return Project.open(folder)


def recommended(small: bool) -> Recipe:
    """Return the recommended recipe of ``time: medium``."""
    folders = ["401_resnet18d_frozen", "410_resnet18d_regression"]
    members = {"410": 40}
    shared: dict[str, object] = {"[34]*:dataset/img_size": 128}
    if small:
        shared |= _small("300", "4??", "41?", "[34]*") | {"401:head": {"type": "RidgeHead"}}
        shared["901:ensemble/methods"] = ["mean", "simplex"]
    else:
        folders += ["400_descriptors", "420_resnet18d_distribution"]
        members["420"] = 30
    shared["901:ensemble/experiments"] = [f"output/{name}" for name in sorted(folders)]
    return Recipe("recommended", "300", members, "901", shared)


def published(small: bool) -> Recipe:
    """Return the published recipe, at the size and with the batch of this data."""
    shared: dict[str, object] = {
        "[012]*:dataset/img_size": 128,
        "000:dataset/max_side": 256,
        # A batch of 512 would make few steps of so few images.
        "000:loader/train/batch_size": 128,
        # The published mixup spans epochs 15 to -5 of 150.
        "100:dataset/mixup/start_epoch": 1,
        "100:dataset/mixup/end_epoch": -1,
        # The exact weights of the same search space.
        "900:ensemble/method": "box",
        "900:ensemble/experiments": ["output/100_resnet18d_cls", "output/200_resnet18d_reg"],
    }
    if small:
        shared |= _small("000", "[12]*", "[12]*", "[012]*")
        shared["900:ensemble/methods"] = ["mean", "box"]
    kept = "output/000_resnet18d_simsiam/backbone_epoch_{}.pth"
    return Recipe("published", "000", {"100": 150, "200": 200}, "900", shared, kept=kept)


def _small(pretraining: str, begun: str, tuned: str, everything: str) -> dict[str, object]:
    """Return overrides that make a recipe's experiments small.

    Args:
        pretraining: Name of its pretraining.
        begun: Pattern of the names of those that begin with its backbone.
        tuned: Pattern of the names of its fine-tunings.
        everything: Pattern of the names of all with images.
    """
    return {
        f"{everything}:dataset/img_size": 32,
        f"{pretraining}:model/backbone/model_name": "test_resnet",
        f"{pretraining}:loader/train/batch_size": 8,
        f"{pretraining}:loader/train/num_workers": 0,
        f"{begun}:model/base_name": "test_resnet",
        f"{tuned}:loader/train/num_workers": 0,
        # A figure takes longer than an epoch here: one for each training is enough.
        f"{pretraining}:extensions/lr_curve": None,
        f"{pretraining}:extensions/std_curve": None,
        f"{tuned}:extensions/lr_curve": None,
        f"{tuned}:extensions/metric_curve": None,
    }


def measured_epochs(project: Project, recipe: Recipe) -> dict[str, float]:
    """Return the seconds of an epoch of pretraining and of fine-tuning, from two epochs of each."""
    aside = {"globals/max_epoch": 2, "globals/snapshot_interval": 2}
    overrides = recipe.overrides
    own = texts(overrides, recipe.pretraining) | aside
    own |= {"globals/output_path": "output/trial_pretraining"}
    pretrained = pretrain(project, _file(recipe.pretraining), override_texts(own))
    member = next(iter(recipe.members))
    own = texts(overrides, member) | {"globals/max_epoch": 2, "model/pretrained": None}
    own |= {"globals/output_root": "output/trial_fine_tuning"}
    trained = train(project, _file(member), override_texts(own), folds=[0])
    return {
        "pretraining": _epoch_s(pretrained.parent if pretrained.is_file() else pretrained),
        "fine-tuning": _epoch_s(trained / "fold0"),
    }


def _epoch_s(folder: Path) -> float:
    manifest = read_manifest(folder / MANIFEST)
    assert manifest is not None
    return float(manifest.facts["epoch_s"])


def run(
    project: Project, recipe: Recipe, seconds: dict[str, float], budget_s: float
) -> dict[str, Any]:
    """Run a recipe within a time; return what it scores.

    Args:
        project: The project.
        recipe: The recipe; takes the numbers of epochs that are chosen.
        seconds: Of an epoch of ``pretraining`` and of ``fine-tuning``.
        budget_s: Time for all of it; 0 for one epoch of everything.
    """
    started = time.monotonic()
    ends = started + budget_s - _END_S
    share_s = _FILL * recipe.pretraining_share * (budget_s - _END_S)
    epochs = int(share_s / seconds["pretraining"])
    recipe.epochs[f"{recipe.pretraining}:globals/max_epoch"] = max(1, epochs)
    recipe.epochs[f"{recipe.pretraining}:globals/snapshot_interval"] = max(1, epochs)
    if recipe.kept is not None:
        for member in recipe.members:
            recipe.epochs[f"{member}:model/pretrained"] = recipe.kept.format(max(1, epochs))
    project.run(recipe.ensemble, recipe.overrides, only=[recipe.pretraining], until="pretrain")
    n_folds = project.n_splits
    epoch_s = seconds["fine-tuning"]
    left = dict(recipe.members)
    for member, own in recipe.members.items():
        share = own / sum(left.values())
        each = _FILL * share * (ends - time.monotonic()) / n_folds - _FOLD_S
        epochs = max(1, min(own, int(each / epoch_s)))
        recipe.epochs[f"{member}:globals/max_epoch"] = epochs
        begun = time.monotonic()
        project.run(recipe.ensemble, recipe.overrides, only=[member], until="train")
        if budget_s:
            # What the epochs of this member really took.
            took = (time.monotonic() - begun) / n_folds - _FOLD_S
            epoch_s = max(took / epochs, 0.01)
        del left[member]
    results = project.run(recipe.ensemble, recipe.overrides)
    took = time.monotonic() - started
    scores = results.scores
    blends = scores[scores["kind"] == "blend"]
    chosen = blends[blends["submit"].fillna(False)]
    best = (chosen if len(chosen) else blends).iloc[0]
    members = scores[scores["kind"] == "member"]
    return {
        "recipe": recipe.name,
        "rmse": float(best["cross_fitted"]),
        "blend": str(best["name"]),
        "members": dict(zip(members["name"], members["cross_fitted"].astype(float), strict=True)),
        "seconds": took,
        "epochs": {
            name.partition(":")[0]: value
            for name, value in recipe.epochs.items()
            if name.endswith("max_epoch")
        },
    }


def texts(overrides: dict[str, object], name: str) -> dict[str, object]:
    """Return those overrides that are for an experiment, without their pattern."""
    found = {}
    for path, value in overrides.items():
        pattern, _, own = path.partition(":")
        if fnmatch(name, pattern):
            found[own] = value
    return found


def _file(name: str) -> str:
    return f"exp_config/{name}.yml"


@contextlib.contextmanager
def quiet(log: Path) -> Iterator[None]:
    """Send the output of runs into a file; what the check prints goes where it went."""
    printed = sys.stdout
    with log.open("w", encoding="utf-8") as file:
        Figures.screen = printed
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            yield


if __name__ == "__main__":
    main()
