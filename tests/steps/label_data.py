"""Small projects with several labels per image: shapes of three colours that may be there."""

import cv2
import numpy as np
import pandas as pd
import yaml

LABELS = ("red", "green", "blue")
_BGR = {"red": (40, 40, 220), "green": (40, 220, 40), "blue": (220, 40, 40)}
_SHARES = (0.6, 0.4, 0.25)

EXPERIMENTS = {
    "400": {
        "import": "foldsmith:image_descriptors_labels.yml",
        "globals/output_root": "output/400",
        "dataset/img_size": 32,
    },
    "410": {
        "import": "foldsmith:multi_label.yml",
        "globals/output_root": "output/410",
        "globals/max_epoch": 2,
        "globals/device": "cpu",
        "model/base_name": "resnet10t",
        "dataset/img_size": 32,
    },
    "901": {
        "import": "foldsmith:recommended_ensemble_labels.yml",
        "globals/output_path": "output/901",
        "ensemble/methods": ["mean", "best", "simplex", "greedy", "stack"],
        "ensemble/experiments": ["output/400", "output/410"],
    },
}


def labels_of(n, seed):
    return (np.random.default_rng(seed).random((n, len(LABELS))) < _SHARES).astype(int)


def make_labels(folder, in_text=False, n_train=40, n_test=8, order=LABELS, **settings):
    """Write a project of n images whose labels are seen in them; returns its folder."""
    rng, images = np.random.default_rng(1), folder / "input" / "images"
    images.mkdir(parents=True)
    labels = labels_of(n_train + n_test, 0)
    labels[n_train] = 0
    for number, row in enumerate(labels):
        pixels = rng.integers(90, 150, (40, 40, 3))
        for place, (name, there) in enumerate(zip(LABELS, row, strict=True)):
            if there:
                pixels[5:35, 4 + 11 * place : 14 + 11 * place] = _BGR[name]
        cv2.imwrite(str(images / f"{number}.png"), pixels.astype(np.uint8))
    train = pd.DataFrame({"id": np.arange(n_train), "site": np.arange(n_train) // 2})
    columns = {name: labels[:n_train, LABELS.index(name)] for name in order}
    if in_text:
        words = [[name for name in order if columns[name][k]] for k in range(n_train)]
        train["labels"] = [" ".join(each) for each in words]
        target = {"target_column": "labels", "label_separator": " ", "label_names": list(order)}
    else:
        train = train.assign(**columns)
        target = {"target_columns": list(order)}
    train.to_csv(folder / "input/train.csv", index=False)
    test = pd.DataFrame({"id": np.arange(n_train, n_train + n_test)})
    test.to_csv(folder / "input/test.csv", index=False)
    content = {
        **{"name": "labels", "image_path": "images/{id}.png", "id_column": "id"},
        **{"folds": {"method": "StratifiedKFold", "n_splits": 3}, **target, **settings},
    }
    (folder / "project.yml").write_text(yaml.safe_dump(content))
    (folder / "exp_config").mkdir()
    for name, tree in EXPERIMENTS.items():
        (folder / f"exp_config/{name}.yml").write_text(yaml.safe_dump(tree))
    return folder
