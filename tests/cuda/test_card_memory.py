"""Too little memory: the advice of a training, the proposal of ``doctor``, and that both work."""

import gc
import json
import re

import pytest
import torch
from small_project import write_experiment

from foldsmith.errors import FoldsmithError
from foldsmith.run.doctor import doctor
from foldsmith.steps import trial_batch
from foldsmith.steps.train_command import train

pytestmark = pytest.mark.cuda

# On a card the network has to fill memory: large images, shown several times in an epoch.
LARGE = {"cuda": (256, 256), "cpu": (12, 32)}


@pytest.fixture
def asking(ready, device, small_images):
    """A fine-tuning in one batch of as many images as there are; returns (project, batch)."""
    batch, side = LARGE[device]
    table = ready.folder / "input" / "train.csv"
    lines = table.read_text().splitlines()
    # Two folds, not quite of a size.
    _repeat(ready.folder, lines, 2 * batch + batch // 2)
    content = {
        "import": "foldsmith:multi_class.yml",
        "globals/device": device,
        "globals/output_root": "output/large",
        "globals/max_epoch": 1,
        "globals/cudnn_benchmark": False,
        "globals/channels_last": True,
        "globals/augment_on": "cpu",
        "model/base_name": "resnet18d" if device == "cuda" else "test_resnet",
        "dataset/img_size": side,
        "loader/train/batch_size": batch,
        "loader/train/drop_last": True,
        "loader/train/num_workers": 0,
        "loader/val/batch_size": 16,
    }
    write_experiment(ready.folder, "600", content)
    return ready, batch


def _repeat(folder, lines, wanted):
    """Write a table of as many images, each file under several names, and its folds anew."""
    from foldsmith.project import ProjectFolder
    from foldsmith.steps.preprocess import preprocess

    header, *rows = lines
    made = []
    for number in range(wanted):
        name, *rest = rows[number % len(rows)].split(",")
        new = f"copy{number:05}"
        source = folder / "input" / "photos" / f"{name}.jpg"
        (folder / "input" / "photos" / f"{new}.jpg").write_bytes(source.read_bytes())
        made.append(",".join([new, *rest]))
    (folder / "input" / "train.csv").write_text("\n".join([header, *made]) + "\n")
    preprocess(ProjectFolder.open(folder))


def fold(project, *changes, start="new"):
    changes = (*changes, *(["globals/output_root=output/again"] if start == "again" else []))
    train(project, "exp_config/600.yml", changes, folds=[0])
    root = project.folder / ("output/again" if start == "again" else "output/large")
    return json.loads((root / "fold0" / "log.json").read_text())[-1]


def test_the_advice_and_the_proposal_fit(
    asking, device, limited, capsys, record_property, monkeypatch
):
    project, batch = asking
    entry = fold(project)
    assert entry["host_mib"] > 0
    needed = 0
    if device == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory / 2**20
        assert 0 < entry["cuda_mib"] < total
        needed = int(entry["cuda_mib"] * 2**20)
        record_property("cuda_mib", entry["cuda_mib"])
    with limited(needed, 0.7, batch):
        # The training says what to try ...
        said = f"out of memory with batches of {batch} images"
        with pytest.raises(FoldsmithError, match=said) as e:
            fold(project, "globals/output_root=output/short")
        advice = re.search(r"loader/train/batch_size=\d+ globals/grad_accum=\d+", str(e.value))
        # Its traceback holds the model.
        del e
        gc.collect()
        assert advice is not None
        # ... and that works.
        assert fold(project, *advice[0].split(), start="again")["train/loss"] > 0
        # doctor says so before the training, and proposes a batch.
        monkeypatch.setattr(trial_batch, "WHOLE_BATCHES_ON", (device,))
        capsys.readouterr()
        assert doctor(project, "exp_config/600.yml") == []
        text = capsys.readouterr().out
        proposal = re.search(r"try loader/train/batch_size=(\d+) globals/grad_accum=(\d+)", text)
        assert proposal is not None, text
        size, accum = map(int, proposal.groups())
        assert size * accum == batch and size < batch
        record_property("proposed", size)
        again = [f"loader/train/batch_size={size}", f"globals/grad_accum={accum}"]
        again.append("globals/output_root=output/proposed")
        train(project, "exp_config/600.yml", again, folds=[0])
