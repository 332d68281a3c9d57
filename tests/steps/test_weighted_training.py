"""Weights of rows and classes, from the tables to trainings, heads and scores."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from small_project import write_experiment

OWN_LOSS = """
import torch
from torch import nn

class Recorded(nn.Module):
    def __init__(self, weighs: bool) -> None:
        super().__init__()
        if not weighs:
            self.forward = self.without

    def forward(self, outputs, targets, weights=None):
        each = nn.functional.cross_entropy(outputs, targets, reduction="none")
        return each.mean() if weights is None else (each * weights).mean()

    def without(self, outputs, targets):
        return nn.functional.cross_entropy(outputs, targets)

TYPES = {"Recorded": Recorded}
"""

HEAD = {
    "import": "foldsmith:image_descriptors.yml",
    "globals/output_root": "output/300",
    "dataset/img_size": 16,
    "head": {"type": "KernelHead"},
}
NETWORK = {"globals/max_epoch": 1, "model/pretrained": None, "loader/train/num_workers": 0}
RUNS = ("output/100", "output/300")


@pytest.fixture
def weighted(small_project):
    """A project whose train table has the weights 0, 1, 2, ... and equal ones."""
    path = small_project / "input/train.csv"
    table = pd.read_csv(path)
    table["w"], table["same"] = np.arange(len(table)) % 4, 0.3
    table.to_csv(path, index=False)
    file = small_project / "exp_config/100.yml"
    write_experiment(small_project, "100", yaml.safe_load(file.read_text()) | NETWORK)
    write_experiment(small_project, "300", HEAD)
    return small_project


def change(folder, **values):
    path = folder / "project.yml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values))


def run_both(cli, folder, *arguments):
    """Train the network and fit the head; return the bytes and scores of both."""
    for name in ("100", "300"):
        cli(folder, "run", "--no-report", "-cfg", f"exp_config/{name}.yml", *arguments)
    cli(folder, "infer", "-e", "output/100", "-cri", "last")
    logits = {run: (folder / run / "oof_logit_by_last.npy") for run in RUNS[:1]}
    logits |= {run: next((folder / run).glob("oof_logit_by_*.npy")) for run in RUNS[1:]}
    return {run: path.read_bytes() for run, path in logits.items()}


def loss_of_head(folder, of_table=True):
    """Return the out-of-fold loss in the score table of the head, or that without weights."""
    if of_table:
        return pd.read_csv(folder / "output/300/score_by_last.csv")["loss"].iloc[-1]
    logits = np.load(folder / "output/300/oof_logit_by_last.npy").astype(float)
    classes = pd.read_csv(folder / "input/train.csv")["target"].to_numpy(int)
    return -logits[np.arange(len(classes)), classes].mean()


def test_equal_weights_change_no_byte_and_others_do(cli, weighted):
    cli(weighted, "preprocess")
    plain = run_both(cli, weighted)
    change(weighted, sample_weight_column="same")
    # The column is an input, whatever is in it.
    assert (
        "sample_weight_column"
        in cli(weighted, "run", "-cfg", "exp_config/300.yml", "--dry-run").stdout
    )
    assert run_both(cli, weighted) == plain
    assert loss_of_head(weighted) == pytest.approx(loss_of_head(weighted, of_table=False), rel=1e-5)
    change(weighted, sample_weight_column="w", class_weights="balanced")
    others = run_both(cli, weighted)
    assert others["output/100"] != plain["output/100"]
    assert others["output/300"] != plain["output/300"]
    # The out-of-fold loss has the weights too.
    assert abs(loss_of_head(weighted) - loss_of_head(weighted, of_table=False)) > 1e-3
    resolved = yaml.safe_load((weighted / "output/300/resolved_config.yml").read_text())
    assert resolved["globals"]["class_weights"] == "balanced"


def test_a_blend_is_stale_by_weights_only_if_a_member_predicts_otherwise(cli, weighted):
    blend = {
        "import": "foldsmith:ensemble.yml",
        "globals/output_path": "output/900",
        "ensemble/experiments": ["output/300"],
        "ensemble/methods": ["mean"],
    }
    write_experiment(weighted, "900", blend)
    arguments = ("run", "--no-report", "-cfg", "exp_config/900.yml")

    def blend_and_member():
        """Return the bytes of both manifests, which contain the times of the steps."""
        names = ("900/manifest.json", "300/manifest_by_last.json")
        return [(weighted / "output" / name).read_bytes() for name in names]

    change(weighted, sample_weight_column="w")
    cli(weighted, *arguments)
    path, first = weighted / "input/train.csv", blend_and_member()
    table = pd.read_csv(path)
    # Twice the weights give the same heads; equal weights give others.
    for weights, same in ((2 * table["w"], True), (1, False)):
        table.assign(w=weights).to_csv(path, index=False)
        cli(weighted, *arguments)
        again = blend_and_member()
        assert again[1] != first[1]
        assert (again[0] == first[0]) == same
    # Another column with the same weights fits the heads again, and makes no blend.
    change(weighted, sample_weight_column="same")
    cli(weighted, *arguments)
    assert blend_and_member()[0] == again[0]
    assert blend_and_member()[1] != again[1]


@pytest.mark.parametrize(
    ("value", "text"),
    [("-1", "-1"), ("", "''"), ("nan", "'nan'"), ("inf", "'inf'"), ("heavy", "'heavy'")],
)
def test_a_wrong_weight_is_named_with_its_column_and_line(cli, weighted, value, text):
    path = weighted / "input/train.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[3, "w"] = value
    table.to_csv(path, index=False)
    change(weighted, sample_weight_column="w")
    result = cli(weighted, "preprocess", code=2)
    (line,) = result.stderr.strip().splitlines()
    assert "train.csv: column w: 1 weight is missing, negative or no number" in line
    assert text in line and "(line 5)" in line


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sample_weight_column": "weigt"}, "no column 'weigt'"),
        ({"sample_weight_column": "target"}, "must be different columns"),
        ({"class_weights": {"7": 2}}, "class_weights: there is no class or label '7'"),
        ({"class_weights": {0: -1}}, "class_weights: the weight of 0 is -1"),
        ({"class_weights": dict.fromkeys(range(4), 0)}, "class_weights: every weight is 0"),
        ({"class_weights": "balancd"}, "must be balanced, none, or a weight by name"),
    ],
)
def test_wrong_keys_of_the_project_are_one_line(cli, weighted, settings, message):
    change(weighted, **settings)
    result = cli(weighted, "preprocess", code=2)
    assert message in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("100", "{9: 2}", "globals/class_weights: there is no class or label '9'"),
        ("000", "balanced", "globals/class_weights: is for experiments that learn targets"),
        ("300", "heavy", "class_weights: must be balanced, none, or"),
    ],
)
def test_wrong_keys_of_an_experiment_are_one_line(cli, weighted, name, value, message):
    cli(weighted, "preprocess")
    arguments = ("-cfg", f"exp_config/{name}.yml", f"globals/class_weights={value}")
    result = cli(weighted, "run", *arguments, code=2)
    assert message in result.stderr and "Traceback" not in result.stderr


def test_an_own_loss_gets_the_weights_that_it_takes(cli, weighted):
    (weighted / "losses.py").write_text(OWN_LOSS)
    change(weighted, python=["losses.py"], sample_weight_column="w", class_weights={3: 5})
    cli(weighted, "preprocess")
    by_last = ("infer", "-e", "output/100", "-cri", "last")
    cli(weighted, "run", "--no-report", "-cfg", "exp_config/100.yml")
    cli(weighted, *by_last)
    by_torch = pd.read_csv(weighted / "output/100/score_by_last.csv")
    log = json.loads((weighted / "output/100/fold0/log.json").read_text())
    override = "loss={type: Recorded, weighs: true}"
    cli(weighted, "run", "--no-report", "-cfg", "exp_config/100.yml", override)
    cli(weighted, *by_last)
    by_own = pd.read_csv(weighted / "output/100/score_by_last.csv")
    pd.testing.assert_frame_equal(by_own, by_torch)
    again = json.loads((weighted / "output/100/fold0/log.json").read_text())
    assert again[-1]["val/loss"] == log[-1]["val/loss"]
    # The loss of the validation has the weights too.
    assert by_own["loss"].iloc[0] == pytest.approx(again[-1]["val/loss"], rel=1e-4)
    result = cli(
        weighted,
        "run",
        "-cfg",
        "exp_config/100.yml",
        "loss={type: Recorded, weighs: false}",
        code=2,
    )
    assert "loss: Recorded takes no weights" in result.stderr


def test_a_balanced_sampler_is_the_same_for_any_number_of_workers(cli, weighted):
    cli(weighted, "preprocess")
    found = {}
    for workers in (0, 1):
        overrides = ("loader/train/sampler=balanced", f"loader/train/num_workers={workers}")
        root = f"output/{workers}"
        cli(
            weighted,
            "train",
            "-cfg",
            "exp_config/100.yml",
            f"globals/output_root={root}",
            *overrides,
        )
        (path,) = (weighted / root / "fold0").glob("snapshot_last*.pth")
        found[workers] = path.read_bytes()
    assert found[0] == found[1]
    cli(weighted, "train", "-cfg", "exp_config/100.yml")
    (plain,) = (weighted / "output/100/fold0").glob("snapshot_last*.pth")
    assert plain.read_bytes() != found[0]


def test_the_report_names_weights_and_sampler(cli, weighted):
    file = weighted / "exp_config/100.yml"
    of_network = {"globals/class_weights": {3: 5, 0: 0.5}, "loader/train/sampler": "balanced"}
    write_experiment(weighted, "100", yaml.safe_load(file.read_text()) | of_network)
    balanced = {"sample_weight_column": "w", "class_weights": "balanced"}
    for name, settings, sentence in (
        ("100", balanced, "sample_weight_column: w; class_weights: 3 5, 0 0.5; sampler: balanced."),
        ("300", balanced, "sample_weight_column: w; class_weights: balanced."),
        ("300", {"sample_weight_column": None, "class_weights": "none"}, None),
    ):
        change(weighted, **settings)
        cli(weighted, "run", "--no-report", "-cfg", f"exp_config/{name}.yml")
        cli(weighted, "report", "-cfg", f"exp_config/{name}.yml", "-o", f"{name}.html")
        page = (weighted / f"{name}.html").read_text()
        assert "out-of-fold RMSE" in page
        if sentence is None:
            assert "Weights of images" not in page
        else:
            assert f"Weights of images: {sentence}" in page


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loader/train/sampler=balance", "loader/train"),
        (
            "loader/train={type: ImageLoader, dataset: '@/dataset/train', batch_size: 4, "
            "shuffle: false, sampler: balanced}",
            "sampler: balanced needs shuffle: true",
        ),
    ],
)
def test_a_wrong_sampler_is_one_line(cli, weighted, override, message):
    cli(weighted, "preprocess")
    result = cli(weighted, "train", "-cfg", "exp_config/100.yml", override, code=2)
    assert message in result.stderr and "Traceback" not in result.stderr
