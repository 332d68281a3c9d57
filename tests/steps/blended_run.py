"""The run of tests of predictions: two fine-tunings, a frozen backbone and their ensemble."""

import numpy as np
import pandas as pd
from small_project import EXPERIMENTS

from foldsmith.project import ProjectFolder
from foldsmith.project.tables import image_paths, read_test

# A network that is better than the constant after an epoch: others have no say in a blend.
QUICK = {
    "globals/max_epoch": 1,
    "loader/train/num_workers": 0,
    "model/base_name": "resnet10t",
}
BACKBONE = "output/000/backbone_epoch_1.pth"
MEMBERS = {
    "000": EXPERIMENTS["000"]
    | {
        "globals/max_epoch": 1,
        "globals/snapshot_interval": 1,
        "model/backbone/model_name": "resnet10t",
    },
    "100": EXPERIMENTS["100"] | QUICK | {"model/pretrained": None, "dataset/mixup": None},
    "200": EXPERIMENTS["200"] | QUICK | {"model/pretrained": None, "globals/tta": "hflip"},
    "300": {
        "import": "foldsmith:frozen_features.yml",
        "globals/output_root": "output/300",
        "model/base_name": "resnet10t",
        "model/pretrained": BACKBONE,
        "dataset/img_size": 40,
    },
    "900": EXPERIMENTS["900"]
    | {
        "ensemble/experiments": ["output/100", "output/200", "output/300"],
        "ensemble/calibrate": "isotonic",
        "ensemble/checkpoint": "last",
    },
}
RUN = "output/900"


def images_of(folder):
    project = ProjectFolder.open(folder)
    return image_paths(project, read_test(project))


def submitted(folder, file):
    return pd.read_csv(folder / file)["target"].to_numpy()


def equal(found, wanted, atol=1e-6):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)
