"""Three optimizer steps of each kind of training, against those in float32 on the CPU.

Tolerances: in float32 a loss may be off by 0.2 % and the weights by 2 % of the way that they have
gone, which is some times what another memory format does on the CPU. In bf16 and fp16 a loss may be
off by 8 %, and everything is finite.
"""

import math

import pytest
from small_project import EXPERIMENTS, write_experiment

from foldsmith.config import Context, Experiment
from foldsmith.models.runtime import create_runtime, seed_everything
from foldsmith.steps.fold_components import build_fold, read_labels
from foldsmith.steps.image_store import open_store
from foldsmith.steps.registry import types_of
from foldsmith.targets.scale import form_of
from foldsmith.targets.tasks import create_task
from foldsmith.training.fine_tune_step import FineTuneStep
from foldsmith.training.loop import run_training
from foldsmith.training.manager import create_manager
from foldsmith.training.pretrain_step import PretrainStep
from foldsmith.utils.hashing import FileHashes

pytestmark = pytest.mark.cuda

LOSS, WAY, HALF = 2e-3, 2e-2, 8e-2

SIZE = {"loader/train/num_workers": 0, "loader/train/drop_last": True}
TUNED = SIZE | {"loader/train/batch_size": 4}
KINDS = {
    "SimSiam": EXPERIMENTS["000"] | SIZE | {"loader/train/batch_size": 10},
    "DINO": {
        "import": "foldsmith:dino.yml",
        "globals/output_path": "output/dino",
        "model/proj_hidden_dim": 64,
        "model/out_dim": 64,
        "dataset/local_size": 32,
        "dataset/train/n_local": 2,
        "probe": None,
        **SIZE,
        "loader/train/batch_size": 10,
    },
    "classification": {
        "import": "foldsmith:multi_class.yml",
        **TUNED,
        "dataset/mixup": {"type": "MixupOrCutMix"},
    },
    "regression": {"import": "foldsmith:regression.yml", **TUNED},
    "label distribution": {"import": "foldsmith:hl_gauss.yml", **TUNED},
}


class Recorded:
    """A step that keeps its losses."""

    def __init__(self, step):
        self.step, self.model, self.losses = step, step.model, []
        self.start_epoch, self.after_update = step.start_epoch, step.after_update

    def __call__(self, batch, epoch, index):
        scalars = self.step(batch, epoch, index)
        assert all(value.device == batch.views[0].device for value in scalars.values())
        self.losses.append(float(scalars["loss"].detach()))
        return scalars


def three_steps(project, kind, backbone, folder, device, **settings):
    """Return the losses of three steps, and how the weights have moved, in float64."""
    changes = [f"globals/{name}={value}" for name, value in settings.items()]
    ssl = kind in ("SimSiam", "DINO")
    named = {"model/backbone/model_name" if ssl else "model/base_name": backbone}
    side = {"dataset/img_size": 32 if backbone == "test_resnet" else 64}
    write_experiment(project.folder, "500", KINDS[kind] | named | side)
    experiment = Experiment.load(
        project,
        "exp_config/500.yml",
        [f"globals/device={device}", "globals/augment_on=cpu", "globals/val_fold=0", *changes],
    )
    options, types = experiment.globals, types_of(project)
    runtime = create_runtime(options)
    seed_everything(options.seed)
    task = None
    if options.task != "self-supervised":
        task = create_task(options, project)
    context = Context(
        images=open_store(project, options, FileHashes(project.hash_store)),
        runtime=runtime,
        task=task,
    )
    if task is None:
        parts = experiment.build(types, context)
    else:
        _, labels = read_labels(experiment, task)
        form = form_of(options.target_scale, labels)[0] if task.learns_numbers else None
        fold = build_fold(experiment, types, context, task, form)
        parts, task = fold.components, fold.task
    model = runtime.place(parts["model"])
    before = {name: value.double().cpu() for name, value in model.state_dict().items()}
    mixup = parts["dataset/mixup"] if experiment.tree["dataset"].get("mixup") else None
    step = Recorded(
        PretrainStep(model)
        if task is None
        else FineTuneStep(model, parts["loss"], task, mixup, 1, options.seed)
    )
    loader, optimizer = parts["loader/train"], parts["optimizer"]
    assert len(loader) == 3
    manager = create_manager(model, optimizer, 1, 3, str(folder))
    run_training(manager, step, loader, optimizer, None, runtime, 1, 1, options.seed)
    moved = {
        name: value.double().cpu() - before[name]
        for name, value in model.state_dict().items()
        if value.is_floating_point()
    }
    return step.losses, moved


def length(moved):
    return math.sqrt(sum(float(value.square().sum()) for value in moved.values()))


@pytest.fixture
def compared(ready, backbone, tmp_path, device, record_property):
    """Return how far three steps on the device are from those in float32 on the CPU."""

    def compare(kind, **settings):
        exact = {"enable_amp": "false", "channels_last": "false"}
        losses, moved = three_steps(ready, kind, backbone, tmp_path / "cpu", "cpu", **exact)
        ours, own_moved = three_steps(
            ready, kind, backbone, tmp_path / "device", device, **settings
        )
        assert all(map(math.isfinite, ours)) and math.isfinite(length(own_moved))
        off = max(abs(a - b) / max(abs(b), 0.1) for a, b in zip(ours, losses, strict=True))
        apart = {name: moved[name] - value for name, value in own_moved.items()}
        way = length(apart) / length(moved)
        assert length(moved) > 0
        record_property("loss_off", off)
        record_property("way_off", way)
        return off, way

    return compare


@pytest.mark.parametrize("kind", KINDS)
def test_three_steps_in_float32(kind, compared, exact):
    off, way = compared(kind, enable_amp="false", channels_last="true")
    assert off < LOSS and way < WAY


@pytest.mark.parametrize("kind", ["SimSiam", "classification", "regression"])
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_three_steps_in_half_precision(kind, dtype, compared, device):
    if device == "cpu":
        if dtype == "fp16":
            pytest.skip("fp16 needs a card")
        if kind != "regression":
            pytest.skip("one is enough for a rehearsal")
    off, _ = compared(kind, amp_dtype=dtype)
    assert off < HALF
