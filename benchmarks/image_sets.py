"""The image sets that recipes are compared on, as projects."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import yaml
from generated import ATMACUP, generate_images
from sklearn.datasets import load_digits

from foldsmith.project import ProjectFolder


def set_up(folder: Path, data: str, fgrade: Path | None) -> ProjectFolder:
    """Make the project of an image set, once."""
    if not (folder / "project.yml").is_file():
        (folder / "input").mkdir(parents=True, exist_ok=True)
        make = {"artwork": make_artwork, "digits": make_digits}.get(data)
        text = make_fgrade(folder / "input", fgrade) if make is None else make(folder / "input")
        (folder / "project.yml").write_text(text, encoding="utf-8")
    return ProjectFolder.open(folder)


def make_artwork(folder: Path) -> str:
    """Write 800 labelled generated images and 400 more; return the project file."""
    generate_images(folder, 800, 400, long_side=64)
    text = (ATMACUP / "project.yml").read_text(encoding="utf-8")
    return text.replace("data_dir: input/atmaCup-11", "data_dir: input")


def make_fgrade(folder: Path, fgrade: Path | None) -> str:
    """Write tables of every fourth image of FGrade; return the project file."""
    if fgrade is None:
        sys.exit("--data fgrade needs --fgrade DIR (train.csv, test.csv, images/)")
    # Frames of a tomato are nearly alike: a fourth of them tells as much.
    order = ["tomato_id", "freshness", "image_id"]
    train = pd.read_csv(fgrade / "train.csv").sort_values(order).iloc[::4]
    train.to_csv(folder / "train.csv", index=False)
    pd.read_csv(fgrade / "test.csv").iloc[::4].to_csv(folder / "test.csv", index=False)
    (folder / "images").symlink_to((fgrade / "images").resolve())
    example = ATMACUP.parents[1] / "examples/fgrade/project.yml"
    text = example.read_text(encoding="utf-8")
    return text.replace("data_dir: input/fgrade", "data_dir: input")


def make_digits(folder: Path) -> str:
    """Write 900 labelled digits and 897 more; return the project file.

    The target is how many closed loops a digit has: two an 8, one a 0, 6 and 9, others none.
    """
    digits = load_digits()
    (folder / "images").mkdir()
    for k, digit in enumerate(digits.images):
        large = cv2.resize(
            (digit / 16 * 255).astype(np.uint8), (48, 48), interpolation=cv2.INTER_CUBIC
        )
        cv2.imwrite(str(folder / f"images/d{k:04}.png"), large)
    loops = np.array([1, 0, 0, 0, 0, 0, 1, 0, 2, 1])[digits.target]
    ids = [f"d{k:04}" for k in range(len(loops))]
    train = pd.DataFrame({"image_id": ids, "loops": loops})
    train[:900].to_csv(folder / "train.csv", index=False)
    train[["image_id"]][900:].to_csv(folder / "test.csv", index=False)
    return yaml.safe_dump(
        {
            **{"name": "digits", "data_dir": "input", "image_path": "images/{image_id}.png"},
            **{"id_column": "image_id", "target_column": "loops"},
            **{"target_range": [0, 2], "n_classes": 3},
            "folds": {"method": "StratifiedKFold", "n_splits": 5},
        }
    )
