"""A deterministic training that was killed and resumed is, byte for byte, one that was not."""

import shutil

import pytest
from kill_and_resume import compare
from small_project import EXPERIMENTS, write_experiment
from warm import Command, wait_for

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("kind", ["pretrain", "train"])
def test_a_killed_training_goes_on_as_if_it_had_not_been(
    ready, backbone, tmp_path, device, kind, request
):
    if kind == "pretrain":
        request.getfixturevalue("on_card_only")
    name, more, file = {
        "pretrain": (
            *("000", {"model/backbone/model_name": backbone}),
            "output/000/resume.pth",
        ),
        # With its scaler, where there is one; and with accumulated gradients.
        "train": (
            *("200", {"model/pretrained": None, "model/base_name": backbone}),
            "output/200/fold0/resume.pth",
        ),
    }[kind]
    content = EXPERIMENTS[name] | more
    content |= {"globals/device": device, "globals/deterministic": True, "globals/max_epoch": 3}
    content |= {"globals/amp_dtype": "fp16" if device == "cuda" else "auto"}
    write_experiment(ready.folder, name, content)
    other = shutil.copytree(ready.folder, tmp_path / "other", symlinks=True)
    command = [kind, "-cfg", f"exp_config/{name}.yml", *(["-v", "0"] if kind == "train" else [])]
    whole = Command(ready.folder, *command).finish(100)
    assert whole.returncode == 0, whole.stderr
    killed = Command(other, *command)
    wait_for(other / file, killed)
    killed.kill()
    resumed = Command(other, *command, "--resume").finish(100)
    assert resumed.returncode == 0, resumed.stderr
    assert "continuing after epoch" in resumed.stdout
    assert compare(ready.folder, other) == []
