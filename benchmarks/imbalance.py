"""Weights of classes and a balanced sampler on classes of very different sizes, at equal epochs.

    python benchmarks/imbalance.py --seeds 2
    python benchmarks/imbalance.py --write docs/fine_tuning.md

The images are scikit-learn's digits. Of each digit fewer are labelled than of the one before (a
long tail, 140 to 2 images). The hidden rows have 30 of each; the metrics weigh them so that every
digit is as frequent as among the labelled images. A network (WRN-16-2 from random
weights) and a head on fixed features are trained with nothing, with `class_weights: balanced` and,
the network, with `loader/train/sampler: balanced`; nothing else differs. A seed draws the images
and trains. Two seeds took 25 minutes on two very busy cores.
"""

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import yaml
from sklearn.datasets import load_digits

import foldsmith
from foldsmith.targets.metrics import metric_named

CLASSES, LARGEST, SHRINK, FEWEST, HIDDEN = 10, 140, 0.62, 2, 30
NETWORK, HEAD = "network", "head on descriptors"
WEIGHTS = {"globals/class_weights": "balanced"}
# Name of each way -> overrides.
WAYS = {
    (NETWORK, "nothing"): {},
    (NETWORK, "class_weights: balanced"): WEIGHTS,
    (NETWORK, "sampler: balanced"): {"loader/train/sampler": "balanced"},
    (HEAD, "nothing"): {},
    (HEAD, "class_weights: balanced"): WEIGHTS,
}
METRICS = ("Accuracy", "BalancedAccuracy", "F1")
BEGIN, END = "<!-- imbalance -->", "<!-- /imbalance -->"


def main() -> None:
    """Train all, then print the table and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--write", type=Path, help="put the table between its marks in a document")
    options = parser.parse_args()
    rows = []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            rows += scores_of_seed(Path(folder), seed, options.epochs)
    text = table_of(pd.DataFrame(rows))
    print(text)
    if options.write is not None:
        document = options.write.read_text(encoding="utf-8")
        before, _, rest = document.partition(BEGIN)
        _, _, after = rest.partition(END)
        options.write.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def scores_of_seed(folder: Path, seed: int, epochs: int) -> list[dict[str, object]]:
    """Return the scores of every way on the hidden rows."""
    hidden = write_project(folder, seed, epochs)
    project = foldsmith.Project.open(folder)
    rows: list[dict[str, object]] = []
    for number, ((model, way), overrides) in enumerate(WAYS.items()):
        name = "100" if model == NETWORK else "400"
        root = {"globals/output_root": f"output/{name}_{number}", "globals/seed": seed}
        results = project.run(name, {**overrides, **root}, quiet=True)
        found = results.predictions.set_index("id")["prediction"].astype(str)
        predicted = found.loc[hidden["id"]].to_numpy(int)
        decided, true = np.eye(CLASSES)[predicted], hidden["digit"].to_numpy(float)
        frequencies = np.array([labelled_of(digit) for digit in hidden["digit"]], float)
        row: dict[str, object] = {"model": model, "way": way, "seed": seed}
        for metric in METRICS:
            judge = metric_named(metric).for_classes(range(CLASSES), unordered=True)
            # Classes are as frequent among new images as among the labelled ones.
            row[metric] = judge(decided, true, frequencies)
        rows.append(row)
        print(row, flush=True)
    return rows


def labelled_of(digit: int) -> int:
    """Return the number of labelled images of a digit."""
    return max(FEWEST, round(LARGEST * SHRINK**digit))


def write_project(folder: Path, seed: int, epochs: int) -> pd.DataFrame:
    """Write a project of digits; return id and digit of the hidden rows."""
    digits, rng = load_digits(), np.random.default_rng(seed)
    images = folder / "input" / "images"
    images.mkdir(parents=True)
    labelled, hidden = [], []
    for digit in range(CLASSES):
        drawn = rng.permutation(np.flatnonzero(digits.target == digit))
        n = labelled_of(digit)
        labelled += [(k, digit) for k in drawn[:n]]
        hidden += [(k, digit) for k in drawn[n : n + HIDDEN]]
    for k, _ in labelled + hidden:
        pixels = (digits.images[k] * 255 / 16).astype(np.uint8)
        cv2.imwrite(str(images / f"{k}.png"), cv2.resize(pixels, (32, 32)))
    for name, rows in (("train", labelled), ("test", hidden)):
        table = pd.DataFrame(rows, columns=["id", "digit"])
        table.to_csv(folder / "input" / f"{name}.csv", index=False)
    settings = {
        "name": "digits",
        "image_path": "images/{id}.png",
        "id_column": "id",
        "target_column": "digit",
        "class_names": [str(digit) for digit in range(CLASSES)],
        "folds": {"method": "StratifiedKFold", "n_splits": 2},
    }
    (folder / "project.yml").write_text(yaml.safe_dump(settings))
    network = {
        "import": "foldsmith:multi_class.yml",
        "globals/max_epoch": epochs,
        "globals/validations": 1,
        "model/base_name": "wrn_16_2",
        "dataset/img_size": 32,
        "dataset/train/transforms/flip": None,
        "scheduler/max_lr": 2.0e-3,
        "loader/train/num_workers": 0,
    }
    head = {
        "import": "foldsmith:image_descriptors.yml",
        "dataset/img_size": 32,
        "head": {"type": "LogisticHead"},
    }
    configs = folder / "exp_config"
    configs.mkdir()
    for name, experiment in (("100", network), ("400", head)):
        (configs / f"{name}.yml").write_text(yaml.safe_dump(experiment))
    return pd.DataFrame(hidden, columns=["id", "digit"]).astype({"id": str})


def table_of(scores: pd.DataFrame) -> str:
    """Return a table in Markdown: mean and standard deviation over the seeds."""
    lines = [f"| model | with | {' | '.join(METRICS)} |", "|---|---|" + "---|" * len(METRICS)]
    for (model, way), rows in scores.groupby(["model", "way"], sort=False):
        cells = [f"{rows[m].mean():.3f} ± {rows[m].std(ddof=0):.3f}" for m in METRICS]
        lines.append(f"| {model} | {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
