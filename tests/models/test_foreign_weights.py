"""Weights from elsewhere: every form that people have, and one line for all that does not fit."""

import argparse
import functools
import os

import pytest
import timm
import torch
from safetensors.torch import save_file
from small_project import EXPERIMENTS, write_experiment

from foldsmith.errors import ConfigError
from foldsmith.models.backbone import create_backbone, pretrained_backbone
from foldsmith.models.snapshots import read_snapshot
from foldsmith.project import ProjectFolder
from foldsmith.run.doctor import doctor
from foldsmith.steps.preprocess import preprocess
from foldsmith.steps.train_command import train


@functools.cache
def _made(name, channels):
    torch.manual_seed(3)
    return timm.create_model(name, in_chans=channels).state_dict()


def of_timm(name="test_resnet", channels=3):
    return {key: value.clone() for key, value in _made(name, channels).items()}


def under(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def taken(path, name="test_resnet"):
    """Load a file as a fine-tuning does, and compare it with timm's own weights."""
    found = pretrained_backbone(name, path.name, path.parent).state_dict()
    wanted = of_timm(name)
    for key, value in found.items():
        torch.testing.assert_close(value, wanted[key])


@pytest.mark.parametrize(
    ("wrapped", "prefix"),
    [
        *((None, prefix) for prefix in ("", "module.", "backbone.", "_orig_mod.module.", "a.b.")),
        *((name, "") for name in ("state_dict", "model", "state_dict_ema", "model_state_dict")),
        *(("state_dict", "module.backbone."), ("model", "model.")),
    ],
)
@pytest.mark.parametrize("classifier", [False, True])
def test_files_of_timm_and_others_are_taken(tmp_path, classifier, wrapped, prefix):
    whole = of_timm()
    state = {k: v for k, v in whole.items() if classifier or not k.startswith("fc.")}
    state = under(prefix, state)
    if wrapped is not None:
        # As timm's own script leaves it; the moving average counts first.
        other = {k: torch.zeros_like(v) for k, v in state.items()}
        rest = {"model": other} if wrapped == "state_dict_ema" else {}
        state = {"epoch": 3, **rest, wrapped: state, "args": argparse.Namespace(lr=0.1)}
    torch.save(state, tmp_path / "w.pth")
    taken(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_safetensors_are_known_by_their_content(tmp_path, name, prefix):
    save_file(under(prefix, of_timm()), tmp_path / name)
    taken(tmp_path / name)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "mobilenetv3_small_050", "convnext_atto"])
def test_classifiers_of_other_kinds_are_left_out(tmp_path, name):
    torch.save(of_timm(name), tmp_path / "w.pth")
    taken(tmp_path / "w.pth", name)


def test_a_larger_model_around_it_is_left_out(tmp_path):
    state = under("backbone.", of_timm()) | {"projector.0.weight": torch.zeros(3, 3)}
    torch.save(state, tmp_path / "w.pth")
    taken(tmp_path / "w.pth")


def test_half_precision_and_missing_counters_are_taken(tmp_path):
    state = {k: v for k, v in of_timm().items() if not k.endswith("num_batches_tracked")}
    torch.save({k: v.half() for k, v in state.items()}, tmp_path / "w.pth")
    found = pretrained_backbone("test_resnet", "w.pth", tmp_path).state_dict()
    assert found["bn1.weight"].dtype == torch.float32
    torch.testing.assert_close(found["conv1.0.weight"], state["conv1.0.weight"], atol=1e-3, rtol=0)


class _Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def _spoilt(value):
    state = of_timm()
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = value
    return state


class _Scripted(torch.nn.Module):
    def forward(self, x):
        return x


BAD = {
    "nan": (lambda: _spoilt(float("nan")), "layer1.0.conv1.weight holds numbers that are NaN"),
    "inf": (lambda: _spoilt(float("inf")), "layer1.0.conv1.weight holds numbers that are NaN"),
    "grey": (lambda: of_timm(channels=1), "weights for images of 1 channels; here they have 3"),
    "deeper": (
        lambda: of_timm() | {"layer1.1.conv1.weight": torch.zeros(3)},
        "weights of another model: 1 keys unknown to the model: layer1.1.conv1.weight",
    ),
    "shallower": (lambda: of_timm("resnet18"), "weights of another model: "),
    "vit": (lambda: of_timm("vit_tiny_patch16_224"), "weights of another model: "),
    "two": (
        lambda: under("student.", of_timm()) | under("teacher.", of_timm()),
        "holds several such models (their names begin with student., teacher.); keep one",
    ),
    "numbers": (lambda: {"epoch": 3}, "does not hold the weights of a model"),
    "list": (lambda: [torch.zeros(2)], "does not hold the weights of a model"),
    "empty": (lambda: {}, "does not hold the weights of a model"),
    "code": (lambda: {"state_dict": _Evil()}, "more than tensors and plain values (posix.mkdir)"),
    "model": (lambda: create_backbone("test_resnet"), "more than tensors and plain values (timm."),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_does_not_fit_is_one_line(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    make, message = BAD[kind]
    torch.save(make(), "w.pth")
    with pytest.raises(ConfigError) as raised:
        pretrained_backbone("test_resnet", "w.pth", tmp_path)
    text = str(raised.value)
    assert text.startswith(f"{tmp_path / 'w.pth'}: ") and message in text and "\n" not in text
    assert "weights_only" not in text and not (tmp_path / "executed").exists()


def _legacy(path):
    torch.save(of_timm(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\x80\x04cos\nsystem\n."),
        lambda path: path.write_bytes(b"no snapshot"),
        lambda path: path.write_bytes(b"12345678{no safetensors"),
        lambda path: torch.jit.script(_Scripted()).save(str(path)),
        _legacy,
        lambda path: path.mkdir(),
    ],
)
def test_no_error_repeats_advice_to_run_code(tmp_path, write):
    path = tmp_path / "w.pth"
    write(path)
    for read in (lambda: pretrained_backbone("test_resnet", "w.pth", tmp_path), path):
        with pytest.raises(ConfigError) as raised:
            read() if callable(read) else read_snapshot(read)
        text = str(raised.value)
        assert text.startswith(f"{path}: ") and "\n" not in text
        assert "weights_only" not in text and "torch.load" not in text and "trust" not in text


@pytest.mark.parametrize("option", ["checkpoint_path", "pretrained", "pretrained_cfg"])
def test_weights_do_not_come_through_options(tmp_path, option):
    with pytest.raises(ConfigError, match=f"{option} is not for options.*model/pretrained"):
        create_backbone("test_resnet", options={option: str(tmp_path / "w.pth")})


@pytest.mark.parametrize("kind", ["grey", "deeper", "code", None])
def test_doctor_says_what_train_says(small_project, monkeypatch, kind):
    state = of_timm() if kind is None else BAD[kind][0]()
    torch.save(state, small_project / "foreign.pth")
    content = EXPERIMENTS["100"] | {
        "model/pretrained": "foreign.pth",
        "globals/max_epoch": 1,
        "loader/train/num_workers": 0,
    }
    write_experiment(small_project, "100", content)
    project = ProjectFolder.open(small_project)
    preprocess(project)
    problems = doctor(project, "exp_config/100.yml")
    if kind is None:
        assert problems == []
        train(project, "exp_config/100.yml", folds=[0])
        return
    (problem,) = problems
    assert BAD[kind][1] in problem
    with pytest.raises(ConfigError) as raised:
        train(project, "exp_config/100.yml", folds=[0])
    assert str(raised.value) == problem
    assert not (small_project / "output/100/fold0").exists()
