"""What a pretraining on the images of a set is worth on a CPU, in equal CPU time.

Every method of foldsmith pretrains the network of the default (WRN-16-2) on all images of a set,
labelled or not, for as many CPU seconds as every other. A head on its frozen features is then
fitted to the labelled rows and scored on rows of other groups, beside the same head on the features
of random weights and on the image descriptors. Networks that are fine-tuned from the pretrained
weights stand beside one from random weights that has the seconds of both: pretraining and
fine-tuning.

    python benchmarks/pretraining.py --fgrade DIR --houses DIR --seconds 60
    python benchmarks/pretraining.py --fgrade DIR --houses DIR --seconds 60 --methods VICReg --tune
    python benchmarks/pretraining.py --write docs/recipe.md

What is finished is kept in build/pretraining/results.jsonl, a line per measurement, with its
predictions beside it, and not measured again. Seconds are those of the process's CPU time, so that
other work on the machine counts little; a run of one epoch measures the speed of each method, and
the number of epochs follows from it. `--write` puts the tables into a document, between its marks.

Settings: views of 32 px (four times as many in the time as of 64 px), cut from 10 to 70 % of the
area, which shows things in about the size that the whole image has at 64 px, where features are
computed and networks fine-tuned. Heads are 512 wide: with those of the papers, made for backbones
of 2,048 features, more than half of the time goes into them. Batches of 64, one cosine with a
warm-up of a tenth. All methods learn with AdamW at 1e-3 and weight decay 0.05, as the default's
regression from random weights does: learning rates of the papers are for SGD or LARS and tens of
thousands of steps, and here are some hundreds. `SimSiam, SGD` has the published optimizer: SGD,
0.05 x 64 / 256, without a schedule.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import report
import yaml
from hidden_sets import GROUP, ID, SETS, TARGET, HiddenSet
from pretraining_tables import (
    DESCRIPTORS,
    RANDOM,
    UNTRAINED,
    Result,
    error,
    errors_of,
    markdown,
    predictions_of_result,
    read_results,
    slug,
    write_document,
)

import foldsmith
from foldsmith.config import Context, Experiment
from foldsmith.inference.predict import predict_logits
from foldsmith.models.runtime import create_runtime
from foldsmith.models.snapshots import load_weights
from foldsmith.project import ProjectFolder
from foldsmith.run.engine import run
from foldsmith.steps.image_store import open_store
from foldsmith.steps.pretrain import pretrain
from foldsmith.steps.registry import types_of
from foldsmith.steps.train_command import train
from foldsmith.targets.scale_buffer import task_kept
from foldsmith.targets.scoring import predictions_of
from foldsmith.targets.tasks import create_task
from foldsmith.training.files import entries_of
from foldsmith.utils.hashing import FileHashes
from foldsmith.utils.log_output import lines_hidden

Tree = dict[str, Any]

BUILD = Path("build/pretraining")
SIDE, VIEW, LOCAL_VIEW = 64, 32, 16
WIDTH = 512
# Hidden rows of a set that are scored, at most; the others are images without a label.
SCORED = 480
# Fold of the rows that are scored, and of those that are learned from.
HIDDEN, LABELLED = 0, 1

BACKBONE: Tree = {"model_name": "wrn_16_2", "options": {"stem_stride": 2}}
ADAMW: Tree = {
    "type": "AdamW",
    "params": {"type": "parameter_groups"},
    "lr": 1e-3,
    "weight_decay": 0.05,
}

# Method -> the recipe that it imports, and its own values.
_SIMSIAM: Tree = {
    "import": "foldsmith:simsiam_cosine.yml",
    "model/proj_hidden_dim": WIDTH,
    "model/out_dim": WIDTH,
    "model/pred_hidden_dim": WIDTH // 4,
}
METHODS: dict[str, Tree] = {
    "SimSiam": _SIMSIAM,
    "VICReg": {
        "import": "foldsmith:vicreg.yml",
        "model/proj_hidden_dim": WIDTH,
        "model/out_dim": WIDTH,
    },
    "SimCLR": {"import": "foldsmith:simclr.yml", "model/proj_hidden_dim": WIDTH},
    "Barlow Twins": {
        "import": "foldsmith:barlow_twins.yml",
        "model/proj_hidden_dim": WIDTH,
        "model/out_dim": WIDTH,
    },
    "BYOL": {"import": "foldsmith:byol.yml", "model/proj_hidden_dim": WIDTH},
    "DINO": {
        "import": "foldsmith:dino.yml",
        "model/proj_hidden_dim": WIDTH,
        "model/out_dim": WIDTH,
        "dataset/local_size": LOCAL_VIEW,
        "dataset/train/n_local": 4,
        "dataset/train/local_transforms/crop/scale": [0.025, 0.1],
    },
    "MoCo v3": {"import": "foldsmith:moco_v3.yml", "model/proj_hidden_dim": WIDTH},
    "LeJEPA": {"import": "foldsmith:lejepa.yml", "model/proj_hidden_dim": WIDTH},
    "SimSiam, SGD": _SIMSIAM
    | {
        "optimizer": {
            "type": "SGD",
            "lr": {"type": "scaled_lr", "base_lr": 0.05},
            "momentum": 0.9,
            "nesterov": True,
            "weight_decay": 1e-4,
        },
        "scheduler": None,
    },
}


def main() -> None:
    """Measure all that is missing, then print and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = ["fgrade", "artwork", "rooms"]
    parser.add_argument("--sets", nargs="+", default=names, choices=list(SETS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--tune", action="store_true", help="Fine-tune from these methods too.")
    parser.add_argument("--seconds", type=float, help="CPU seconds of each pretraining.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--houses", type=Path)
    parser.add_argument("--fgrade", type=Path)
    parser.add_argument("--folder", type=Path, default=BUILD)
    parser.add_argument("--write", type=Path, help="Document to put the tables into.")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    sources = {"rooms": arguments.houses, "price": arguments.houses, "fgrade": arguments.fgrade}
    if arguments.seconds is not None:
        sets = {
            name: ImageSet(folder, SETS[name], sources.get(name), arguments.seconds)
            for name in arguments.sets
        }
        for seed in arguments.seeds:
            for each in sets.values():
                each.measure_untrained(seed)
            for method in arguments.methods:
                for each in sets.values():
                    each.measure_method(method, seed)
            if arguments.tune:
                for each in sets.values():
                    each.measure_fine_tunings(arguments.methods, seed)
    results = read_results(folder)
    print(markdown(folder, results))
    if arguments.write is not None:
        write_document(arguments.write, folder, results)


class ImageSet:
    """An image set as a project with two folds: the labelled rows and the scored ones.

    Args:
        folder: Folder of all measurements.
        data: The set.
        source: Folder of its images, if it is not generated.
        seconds: CPU seconds of a pretraining.
    """

    def __init__(self, folder: Path, data: HiddenSet, source: Path | None, seconds: float) -> None:
        self.folder, self.data, self.seconds = folder, data, seconds
        data.make(folder / data.name, source)
        self.project = _project(folder / data.name, data)
        # Seconds of the start and end of a pretraining; of a fine-tuning.
        self._start_s: dict[str, float] = {}

    def measure_untrained(self, seed: int) -> None:
        """Score the head on descriptors, and on features of random weights."""
        if not self._done("features", DESCRIPTORS, seed):
            head = {"head": {"type": "LogisticHead" if self.data.classes else "RidgeHead"}}
            tree = {"import": "foldsmith:image_descriptors.yml", **head}
            self._keep("features", DESCRIPTORS, seed, self._frozen(tree, "descriptors", seed))
        if not self._done("features", UNTRAINED, seed):
            found = self._frozen(self._features_of(None), "untrained", seed)
            self._keep("features", UNTRAINED, seed, found)

    def measure_method(self, method: str, seed: int) -> None:
        """Pretrain by a method, and score the head on its features."""
        if self._done("features", method, seed):
            return
        name = f"{slug(method)}_{self.seconds:g}_{seed}"

        def trained(epochs: int, output: str) -> float:
            tree = pretraining(method) | {
                "globals/max_epoch": epochs,
                "globals/seed": seed,
                "globals/output_path": f"output/{output}",
            }
            file = self._write(output, tree)
            return cpu_s(lambda: pretrain(self.project, file, force=True))

        if "pretraining" not in self._start_s:
            # The first run decodes the images and loads libraries.
            trained(1, f"{name}_first")
            one, two = (trained(n, f"{name}_first") for n in (1, 2))
            self._start_s["pretraining"] = max(0.0, 2 * one - two)
        start_s = self._start_s["pretraining"]
        epoch_s = trained(1, f"{name}_speed") - start_s
        epochs = max(1, round((self.seconds - start_s) / epoch_s))
        seconds = trained(epochs, name)
        weights = f"output/{name}/backbone_epoch_{epochs}.pth"
        log = entries_of(self.project.path(f"output/{name}"))[-1]
        facts = {"epochs": epochs, "cpu_s": round(seconds, 1), "weights": weights}
        facts |= {key: log[key] for key in ("train/loss", "train/std") if key in log}
        found = self._frozen(self._features_of(weights), f"{name}_features", seed)
        self._keep("features", method, seed, found, facts)

    def measure_fine_tunings(self, methods: Sequence[str], seed: int) -> None:
        """Fine-tune from random weights in twice the seconds of a pretraining, and from methods."""
        for method in (RANDOM, *methods):
            if not self._done("fine-tuning", method, seed):
                self._measure_fine_tuning(method, seed)

    def _measure_fine_tuning(self, method: str, seed: int) -> None:
        recipe = "classes" if self.data.classes else "regression"
        tree: Tree = {
            "import": f"foldsmith:from_scratch_{recipe}.yml",
            "globals/threads": 1,
            "globals/seed": seed,
            "globals/resume_interval": 1000,
            # The last epoch counts; others would make the measured epochs dearer than those that
            # follow from them.
            "globals/validations": 1,
            "loader/train/num_workers": 0,
            "loader/val/num_workers": 0,
            "model/base_name": BACKBONE["model_name"],
            "model/backbone_options": {"options": BACKBONE["options"]},
            "dataset/img_size": SIDE,
        }
        seconds = 2 * self.seconds
        if method != RANDOM:
            before = self._done("features", method, seed)
            if before is None:
                sys.exit(f"{self.data.name}: {method} has not been measured with seed {seed}")
            tree["model/pretrained"] = before["weights"]
            seconds -= before["cpu_s"]

        def tuned(epochs: int, output: str) -> float:
            own = {"globals/max_epoch": epochs, "globals/output_root": f"output/{output}"}
            file = self._write(output, tree | own)
            return cpu_s(lambda: train(self.project, file, folds=[HIDDEN], force=True))

        if "fine-tuning" not in self._start_s:
            tuned(1, "tuned_first")
            one, three = (tuned(n, "tuned_first") for n in (1, 3))
            self._start_s["epoch"] = (three - one) / 2
            self._start_s["fine-tuning"] = max(0.0, one - self._start_s["epoch"])
        start_s = self._start_s["fine-tuning"]
        epochs = max(1, round((seconds - start_s) / self._start_s["epoch"]))
        output = f"tuned_{slug(method)}_{self.seconds:g}_{seed}"
        taken = tuned(epochs, output)
        found = self._predicted(output, epochs)
        self._keep("fine-tuning", method, seed, found, {"epochs": epochs, "cpu_s": round(taken, 1)})

    def _predicted(self, output: str, epochs: int) -> pd.DataFrame:
        """Return the predictions of a fine-tuned network for the scored rows."""
        file = self.project.path(f"exp_config/{output}.yml")
        experiment = Experiment.load(self.project, file).with_values({"globals/val_fold": HIDDEN})
        types, settings = types_of(self.project), experiment.globals
        runtime, task = create_runtime(settings), create_task(settings, self.project)
        store = open_store(self.project, settings, FileHashes(self.project.hash_store))
        parts = experiment.build(types, Context(images=store, runtime=runtime, task=task))
        model, loader = runtime.place(parts["model"]), parts["loader/val"]
        snapshot = f"output/{output}/fold{HIDDEN}/snapshot_last_epoch_{epochs}.pth"
        load_weights(model, self.project.path(snapshot))
        logits = predict_logits([model], loader, runtime, None, settings.tta)
        predictions = predictions_of([task_kept(task, model)], logits)[0]
        table = pd.read_csv(self.project.path("input/train.csv"), dtype={ID: str})
        scored = table.iloc[loader.dataset.rows]
        if self.data.classes:
            names = np.asarray(self.project.class_names)
            predictions = names[predictions.astype(int)]
        return pd.DataFrame({ID: scored[ID], "prediction": predictions})

    def _features_of(self, weights: str | None) -> Tree:
        """Return a head on the frozen features of a network."""
        return {
            "import": "foldsmith:frozen_features.yml",
            "model/base_name": BACKBONE["model_name"],
            "model/backbone_options": {"options": BACKBONE["options"]},
            "model/pretrained": weights,
            "dataset/img_size": SIDE,
            # The whole image as a square, as the networks from random weights see it.
            "dataset/val/transforms/shrink": {"type": "Resize", "interpolation": "area"},
            "dataset/val/transforms/pad": None,
            "head": {"type": "LogisticHead" if self.data.classes else "RidgeHead"},
        }

    def _frozen(self, tree: Tree, output: str, seed: int) -> pd.DataFrame:
        """Return the predictions of a head on frozen features for the scored rows."""
        own = {
            "globals/output_root": f"output/{output}",
            "globals/threads": 1,
            "globals/seed": seed,
            "loader/val/num_workers": 0,
            "loader/test/num_workers": 0,
        }
        file = self._write(output, tree | own)
        with lines_hidden():
            run(self.project, file)
        found = foldsmith.Project.open(self.project.folder).results(output).oof
        scored = found[found["fold"] == HIDDEN]
        return scored[["id", "prediction"]].rename(columns={"id": ID})

    def _write(self, name: str, tree: Tree) -> Path:
        """Write an experiment; return its file, relative to the project."""
        file = Path("exp_config", f"{name}.yml")
        path = self.project.path(file)
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
        return file

    def _key(self, part: str, method: str, seed: int) -> Result:
        # Descriptors and random weights take no pretraining.
        free = method in (DESCRIPTORS, UNTRAINED)
        seconds = None if free else self.seconds
        return {
            "set": self.data.name,
            "part": part,
            "method": method,
            "seconds": seconds,
            "seed": seed,
        }

    def _done(self, part: str, method: str, seed: int) -> Result | None:
        key = self._key(part, method, seed)
        return next((one for one in read_results(self.folder) if key.items() <= one.items()), None)

    def _keep(
        self, part: str, method: str, seed: int, found: pd.DataFrame, facts: Result | None = None
    ) -> None:
        key = self._key(part, method, seed)
        path = predictions_of_result(self.folder, key)
        path.parent.mkdir(exist_ok=True)
        found.to_csv(path, index=False)
        errors = errors_of(self.folder, key)[0]
        line = key | {"error": error(self.data, errors), **(facts or {}), **report.machine()}
        with (self.folder / "results.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(key | {"error": line["error"], **(facts or {})}), flush=True)


def pretraining(method: str) -> Tree:
    """Return the pretraining of a method, without its epochs, seed and output."""
    tree: Tree = {
        "globals/threads": 1,
        "globals/enable_amp": True,
        "globals/resume_interval": 1000,
        "globals/snapshot_interval": 1000,
        "model/backbone": {"type": "Backbone"} | BACKBONE,
        "dataset/img_size": VIEW,
        "dataset/max_side": 2 * SIDE,
        "dataset/train/transforms/crop/scale": [0.1, 0.7],
        "loader/train/batch_size": 64,
        "loader/train/num_workers": 0,
        "optimizer": ADAMW,
        "scheduler": {
            "type": "WarmupCosine",
            "total_steps": {"type": "optimizer_steps"},
            "warmup_fraction": 0.1,
        },
        "probe": None,
        **{f"extensions/{name}": None for name in ("probe_curve", "rank_curve", "rank_collapse")},
        **{f"extensions/{name}": None for name in ("loss_curve", "std_curve", "lr_curve")},
    }
    return {"import": METHODS[method]["import"]} | tree | METHODS[method]


def _project(folder: Path, data: HiddenSet) -> ProjectFolder:
    """Return the project of a set, made once."""
    project = folder / "project"
    if not (project / "project.yml").is_file():
        shutil.rmtree(project, ignore_errors=True)
        (project / "input").mkdir(parents=True)
        (project / "input" / "images").symlink_to(folder / "images")
        labelled = pd.read_csv(folder / "train.csv", dtype={ID: str})
        hidden = pd.read_csv(folder / "hidden.csv", dtype={ID: str})
        # Whole groups, as many as are needed.
        sizes = hidden.groupby(GROUP, sort=False).size().cumsum()
        scored = hidden[GROUP].isin(sizes.index[sizes <= SCORED])
        columns = [ID, *([GROUP] if data.grouped else []), TARGET]
        table = pd.concat([labelled.assign(fold=LABELLED), hidden[scored].assign(fold=HIDDEN)])
        table[[*columns, "fold"]].to_csv(project / "input" / "train.csv", index=False)
        hidden.loc[~scored, [ID]].to_csv(project / "input" / "test.csv", index=False)
        suffix = next((folder / "images").iterdir()).suffix
        settings = {
            **{"name": data.name, "data_dir": "input", "image_path": f"images/{{{ID}}}{suffix}"},
            **{"id_column": ID, "target_column": TARGET, "metric": data.metric},
            **{"folds": {"method": "GroupKFold" if data.grouped else "KFold", "n_splits": 2}},
            **({"group_column": GROUP} if data.grouped else {}),
            **_target_settings(data, labelled[TARGET]),
        }
        text = yaml.safe_dump(settings, sort_keys=False)
        (project / "project.yml").write_text(text, encoding="utf-8")
    return ProjectFolder.open(project)


def _target_settings(data: HiddenSet, targets: pd.Series) -> Tree:
    if data.classes:
        return {"class_names": sorted(map(str, targets.unique()))}
    span = [float(targets.min()), float(targets.max())]
    return {"target_range": span, "n_classes": 4, "class_values": []}


def cpu_s(work: Callable[[], object]) -> float:
    """Return the CPU seconds of this process in which some work is done."""
    started = time.process_time()
    with lines_hidden():
        work()
    return time.process_time() - started


if __name__ == "__main__":
    main()
