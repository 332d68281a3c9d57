"""Small projects with several numbers per image: sizes and brightness of a bar, some missing."""

import cv2
import numpy as np
import pandas as pd
import yaml

NUMBERS = ("width", "light", "height")
RANGES = {"width": [0, 40], "light": [0, 1000], "height": [0, 40]}
DERIVED = {"around": "2 * (width + height)"}

TREES = {"type": "TreesHead", "n_trees": 20}
EXPERIMENTS = {
    "400": {
        "import": "foldsmith:image_descriptors_numbers.yml",
        "globals/output_root": "output/400",
        "dataset/img_size": 32,
        "head": {
            "type": "NumbersHead",
            "head": {"type": "MeanHead", "heads": [{"type": "RidgeHead"}, TREES]},
        },
    },
    "410": {
        "import": "foldsmith:multi_regression.yml",
        "globals/output_root": "output/410",
        "globals/max_epoch": 2,
        "globals/device": "cpu",
        "model/base_name": "test_resnet",
        "dataset/img_size": 32,
    },
    "901": {
        "import": "foldsmith:recommended_ensemble_numbers.yml",
        "globals/output_path": "output/901",
        "ensemble/methods": ["mean", "best", "simplex", "greedy"],
        "ensemble/experiments": ["output/400", "output/410"],
    },
}


def numbers_of(n, seed=0):
    """Return width, brightness and height of the bar in each image, shape (n, 3)."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(4, 36, (n, 2))
    light = rng.integers(0, 900, n)
    return np.stack([sizes[:, 0], light, sizes[:, 1]], axis=1).astype(float)


def make_numbers(
    folder, n_train=40, n_test=8, order=NUMBERS, missing=True, derived=DERIVED, **settings
):
    """Write a project of n images whose numbers are seen in them; returns its folder."""
    rng, images = np.random.default_rng(1), folder / "input" / "images"
    images.mkdir(parents=True)
    numbers = numbers_of(n_train + n_test)
    for number, (width, light, height) in enumerate(numbers.astype(int)):
        pixels = rng.integers(40, 60, (40, 40, 3))
        pixels[: max(height, 1), : max(width, 1)] = 60 + light * 195 // 1000
        cv2.imwrite(str(images / f"{number}.png"), pixels.astype(np.uint8))
    train = pd.DataFrame({"id": np.arange(n_train), "site": np.arange(n_train) // 2})
    for name in order:
        values = numbers[:n_train, NUMBERS.index(name)].copy()
        if missing:
            # Of each image two targets at least are there.
            values[np.arange(n_train) % 7 == NUMBERS.index(name)] = np.nan
        train[name] = values
    train.to_csv(folder / "input/train.csv", index=False)
    test = pd.DataFrame({"id": np.arange(n_train, n_train + n_test)})
    test.to_csv(folder / "input/test.csv", index=False)
    content = {
        **{"name": "numbers", "image_path": "images/{id}.png", "id_column": "id"},
        **{"folds": {"method": "StratifiedKFold", "n_splits": 2}},
        **{"target_columns": list(order), "target_kind": "numbers"},
        **{"target_ranges": {name: RANGES[name] for name in order}, "metric": "NRMSE"},
        **({"derived_columns": derived} if derived else {}),
        **settings,
    }
    (folder / "project.yml").write_text(yaml.safe_dump(content, sort_keys=False))
    (folder / "exp_config").mkdir()
    for name, tree in EXPERIMENTS.items():
        (folder / f"exp_config/{name}.yml").write_text(yaml.safe_dump(tree))
    return folder
