"""Nothing that may run on a device is in double precision, which Apple's GPU does not have."""

import traceback
from pathlib import Path

import pytest
import torch
from small_project import EXPERIMENTS, write_experiment
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from foldsmith.project import ProjectFolder
from foldsmith.steps.preprocess import preprocess
from foldsmith.steps.pretrain import pretrain
from foldsmith.steps.train_command import train

# What computes for people, on the CPU wherever the models are.
ON_THE_HOST = {"datasets.py", "hl_gauss.py"}

OF_A_FOLD = {
    "globals/max_epoch": 1,
    "model/base_name": "test_resnet",
    "model/pretrained": None,
    "dataset/img_size": 32,
    "dataset/mixup": {"type": "Mixup"},
    "loader/train/batch_size": 8,
}
RECIPES = {
    "multi_class": OF_A_FOLD | {"globals/ema_decay": 0.9},
    "regression": OF_A_FOLD | {"globals/head_init": "ridge"},
    "hl_gauss": OF_A_FOLD,
    "corn": OF_A_FOLD,
}


class Watch(TorchDispatchMode):
    """Takes down where in the package an operation reads or gives float64."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)]
        if any(tensor.dtype == torch.float64 for tensor in tensors):
            frames = [Path(f.filename) for f in traceback.extract_stack()]
            own = [path.name for path in frames if "foldsmith" in path.parts]
            self.found.add((own[-1], str(function)))
        return result


def test_descriptors_and_inference_are_in_single_precision(small_project):
    content = {"import": "foldsmith:image_descriptors.yml", "globals/output_root": "output/500"}
    write_experiment(small_project, "500", content)
    project = ProjectFolder.open(small_project)
    preprocess(project)
    with Watch() as watch:
        train(project, "exp_config/500.yml")
    assert {name for name, _ in watch.found} <= ON_THE_HOST | {"runtime.py"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_models_losses_and_steps_are_in_single_precision(small_project, recipe):
    content = {"import": f"foldsmith:{recipe}.yml", "globals/output_root": "output/500"}
    write_experiment(small_project, "500", content | RECIPES[recipe])
    project = ProjectFolder.open(small_project)
    preprocess(project)
    with Watch() as watch:
        train(project, "exp_config/500.yml", folds=[0])
    # Targets that are no codes become single precision before they get to the device.
    assert {name for name, _ in watch.found} <= ON_THE_HOST | {"runtime.py"}


def test_a_pretraining_is_in_single_precision(small_project):
    content = EXPERIMENTS["000"] | {"globals/max_epoch": 1, "globals/snapshot_interval": 1}
    write_experiment(small_project, "000", content)
    project = ProjectFolder.open(small_project)
    preprocess(project)
    with Watch() as watch:
        pretrain(project, "exp_config/000.yml")
    assert {name for name, _ in watch.found} == {"datasets.py", "runtime.py"}
