"""A project so small that a whole run takes seconds: real images, real models, the real CLI."""

import shutil
import subprocess
import sys
from pathlib import Path

import yaml

PROJECT = {
    "name": "small",
    "image_path": "photos/{object_id}.jpg",
    "id_column": "object_id",
    "target_column": "target",
    "group_column": "art_series_id",
    "target_range": [0, 3],
    "n_classes": 4,
    "folds": {"method": "GroupKFold", "n_splits": 2, "seed": 1},
}

SIMSIAM = "output/000"
BACKBONE = f"{SIMSIAM}/backbone_epoch_3.pth"

# A figure takes longer than an epoch here: one for each training is enough.
ONE_CURVE = {"extensions/lr_curve": None, "extensions/metric_curve": None}

# Off a CPU, only deterministic algorithms give the same bits twice.
SAME_BITS = {"globals/deterministic": True}

EXPERIMENTS = {
    "000": {
        "import": "foldsmith:self_supervised.yml",
        **SAME_BITS,
        "extensions/lr_curve": None,
        "extensions/std_curve": None,
        "globals/output_path": SIMSIAM,
        "globals/max_epoch": 3,
        "globals/snapshot_interval": 2,
        "model/backbone/model_name": "test_resnet",
        "model/proj_hidden_dim": 64,
        "dataset/img_size": 32,
        "loader/train/batch_size": 8,
    },
    "100": {
        "import": "foldsmith:multi_class.yml",
        **SAME_BITS,
        **ONE_CURVE,
        "globals/output_root": "output/100",
        "globals/max_epoch": 3,
        "model/base_name": "test_resnet",
        "model/pretrained": BACKBONE,
        "dataset/img_size": 32,
        "dataset/mixup": {"type": "Mixup"},
        "loader/train/batch_size": 8,
        "loader/train/num_workers": 1,
    },
    "200": {
        "import": "foldsmith:regression.yml",
        **SAME_BITS,
        **ONE_CURVE,
        "globals/output_root": "output/200",
        "globals/max_epoch": 2,
        "globals/grad_accum": 2,
        "model/base_name": "test_resnet",
        "model/pretrained": BACKBONE,
        "dataset/img_size": 32,
        "loader/train/batch_size": 4,
    },
    "900": {
        "import": "foldsmith:ensemble.yml",
        "globals/output_path": "output/900",
        "ensemble/experiments": ["output/100", "output/200"],
        "ensemble/n_trials": 20,
    },
}


def make_project(folder: Path, images: Path) -> Path:
    """Write the project into ``folder`` with a copy of generated tables and images."""
    shutil.copytree(images, folder / "input")
    (folder / "project.yml").write_text(yaml.safe_dump(PROJECT, sort_keys=False))
    (folder / "exp_config").mkdir()
    for name, content in EXPERIMENTS.items():
        write_experiment(folder, name, content)
    return folder


def write_experiment(folder: Path, name: str, content: dict) -> None:
    """Write one experiment file."""
    text = yaml.safe_dump(content, sort_keys=False)
    (folder / "exp_config" / f"{name}.yml").write_text(text)


def fresh(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run the command line in a project, in a new interpreter."""
    command = [sys.executable, "-m", "foldsmith", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
