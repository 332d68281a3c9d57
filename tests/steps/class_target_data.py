"""Small projects with several class targets per image: colour and size of a bar, some missing."""

import cv2
import numpy as np
import pandas as pd
import yaml

CLASSES = {"colour": ["red", "green", "blue"], "size": ["small", "large"]}
TARGETS = tuple(CLASSES)

_BGR = {"red": (40, 40, 220), "green": (40, 220, 40), "blue": (220, 40, 40)}
_PIXELS = {"small": 12, "large": 28}

TREES = {"type": "TreesHead", "n_trees": 20, "class_values": [0, 1]}
HEAD = {
    "type": "MeanHead",
    "heads": [{"type": "LogisticHead", "class_values": [0, 1], "C": [0.1]}, TREES],
}
EXPERIMENTS = {
    "400": {
        "import": "foldsmith:image_descriptors_class_targets.yml",
        "globals/output_root": "output/400",
        "dataset/img_size": 32,
        "head": {"type": "ClassTargetsHead", "sizes": "@/project.block_sizes", "head": HEAD},
    },
    "410": {
        "import": "foldsmith:multi_classification.yml",
        "globals/output_root": "output/410",
        "globals/max_epoch": 2,
        "globals/device": "cpu",
        "model/base_name": "test_resnet",
        "dataset/img_size": 32,
    },
    "901": {
        "import": "foldsmith:recommended_ensemble_class_targets.yml",
        "globals/output_path": "output/901",
        "ensemble/methods": ["mean", "best", "simplex", "greedy"],
        "ensemble/experiments": ["output/400", "output/410"],
    },
}


def texts_of(n, seed=0):
    """Return the classes of each image by target, texts, shape (n,) each."""
    rng = np.random.default_rng(seed)
    return {name: rng.choice(texts, n) for name, texts in CLASSES.items()}


def make_class_targets(folder, n_train=40, n_test=8, order=TARGETS, missing=True, **settings):
    """Write a project of n images whose classes are seen in them; returns its folder."""
    rng, images = np.random.default_rng(1), folder / "input" / "images"
    images.mkdir(parents=True)
    texts = texts_of(n_train + n_test)
    for number, (colour, size) in enumerate(zip(texts["colour"], texts["size"], strict=True)):
        pixels = rng.integers(40, 90, (40, 40, 3))
        pixels[: _PIXELS[size], : _PIXELS[size]] = _BGR[colour]
        cv2.imwrite(str(images / f"{number}.png"), pixels.astype(np.uint8))
    train = pd.DataFrame({"id": np.arange(n_train), "site": np.arange(n_train) // 2})
    for name in order:
        column = texts[name][:n_train].astype(object)
        if missing:
            # Of each image one target at least is there.
            column[np.arange(n_train) % 7 == TARGETS.index(name)] = ""
        train[name] = column
    train.to_csv(folder / "input/train.csv", index=False)
    test = pd.DataFrame({"id": np.arange(n_train, n_train + n_test)})
    test.to_csv(folder / "input/test.csv", index=False)
    content = {
        **{"name": "targets", "image_path": "images/{id}.png", "id_column": "id"},
        **{"folds": {"method": "StratifiedKFold", "n_splits": 2}},
        **{"target_columns": list(order), "target_kind": "classes"},
        **{"target_classes": {name: CLASSES[name] for name in order}},
        **{"metric": "BalancedAccuracy"},
        **settings,
    }
    (folder / "project.yml").write_text(yaml.safe_dump(content, sort_keys=False))
    (folder / "exp_config").mkdir()
    for name, tree in EXPERIMENTS.items():
        (folder / f"exp_config/{name}.yml").write_text(yaml.safe_dump(tree))
    return folder
