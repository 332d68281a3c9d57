"""An ensemble from the command line, on real members, by another metric than RMSE."""

from typing import get_type_hints

import numpy as np
import pandas as pd
import pytest
from warm import foldsmith

from foldsmith.cli import step_commands
from foldsmith.config import Checkpoint
from foldsmith.errors import ConfigError, OutputError
from foldsmith.project import ProjectFolder
from foldsmith.report.finished_run import read_finished
from foldsmith.report.run_comparison import compare_runs
from foldsmith.run.plan import plan_of
from foldsmith.run.state import states_of
from foldsmith.steps.ensemble import ensemble
from foldsmith.steps.manifest import read_manifest
from foldsmith.steps.train_command import train
from foldsmith.utils.hashing import FileHashes

TARGET = "exp_config/900.yml"
QUICK = ["[12]*:model/pretrained=null", "[12]*:globals/max_epoch=2", "[12]*:dataset/img_size=32"]
COMMON = ["ensemble/checkpoint=common", "[12]*:globals/snapshot_epochs=all"]


def by_metric(folder, name):
    path = folder / "project.yml"
    path.write_text(path.read_text() + f"metric: {name}\n")


def states(folder, overrides):
    project = ProjectFolder.open(folder)
    return states_of(plan_of(project, TARGET, overrides), FileHashes(project.hash_store))


def test_the_command_line_has_every_checkpoint():
    assert get_type_hints(step_commands.infer)["checkpoint"] == Checkpoint


def test_common_epochs_need_their_snapshots(small_project):
    project = ProjectFolder.open(small_project)
    with pytest.raises(ConfigError, match=r"100.yml: globals/snapshot_epochs: must be all"):
        plan_of(project, TARGET, [*QUICK, COMMON[0]])
    plan = plan_of(project, TARGET, [*QUICK, *COMMON])
    assert "infer 100 by common" in [step.label for step in plan.steps]


def test_an_ensemble_by_kappa_of_common_epochs(small_project):
    by_metric(small_project, "QWK")
    overrides = [*QUICK, *COMMON, "ensemble/calibrate=thresholds"]
    result = foldsmith(small_project, "run", "--no-report", "-cfg", TARGET, *overrides)
    assert result.returncode == 0, result.stdout + result.stderr
    logs = [
        pd.read_json(small_project / f"output/100/fold{k}/log.json")["val/metric"] for k in range(2)
    ]
    scores = pd.read_csv(small_project / "output/100/score_by_common.csv")
    best = 1 + int(np.argmax(np.mean(logs, axis=0)))
    assert scores["epoch"].tolist()[:2] == [best, best]
    assert scores["fold"].tolist() == ["0", "1", "oof", "thresholds"]
    gap = scores["metric"] - scores["last_metric"]
    np.testing.assert_allclose(scores["selection_gap"], gap)
    facts = read_manifest(small_project / "output/100/manifest_by_common.json").facts
    assert facts["selection_gap"] == pytest.approx(gap[2])
    assert facts["metric_with_thresholds"] == pytest.approx(scores["metric"][3])
    assert f"(epoch {best} for all folds" in result.stdout
    assert "selection gap: QWK" in result.stdout
    # Every epoch's snapshot is deleted when the chosen ones are copies.
    assert not list(small_project.glob("output/*/fold*/snapshot_*.pth"))
    assert len(list(small_project.glob("output/*/common_model_fold*.pth"))) == 4

    output = small_project / "output/900"
    table = pd.read_csv(output / "ensemble_scores.csv", index_col="name")
    assert table.index.tolist()[:4] == ["avg-cls", "avg-reg", "avg-all", "wopt-all"]
    assert {"best", "greedy", "stack", "mean+thresholds"} < set(table.index)
    assert table["qwk"]["avg-all"] == table["cross_fitted"]["avg-all"]
    assert (table["low"] <= table["cross_fitted"]).all()
    gains = table["cross_fitted"] - table["cross_fitted"]["avg-all"]
    np.testing.assert_allclose(table["gain"], gains, atol=1e-12)
    # The recommended one is submission.csv, and said in words.
    (submit,) = table.index[table["submit"]]
    file = submit.replace("wopt", "weight_optimization").replace("-", "_").replace("+", "_")
    recommended = (output / f"submission_{file}.csv").read_text()
    assert (output / "submission.csv").read_text() == recommended
    assert f"submit {submit}" in result.stdout and " images give" in result.stdout
    # Kappa judges classes, so that is what is submitted.
    for submission in output.glob("submission*.csv"):
        assert set(pd.read_csv(submission)["target"]) <= {0, 1, 2, 3}, submission
    assert {state.status for state in states(small_project, overrides).values()} == {"done"}

    # The same members judged by another metric: not done any more, and not all can be judged.
    text = (small_project / "project.yml").read_text()
    (small_project / "project.yml").write_text(text.replace("QWK", "MAE"))
    stale = states(small_project, [*QUICK, *COMMON])["train 200 fold 1"]
    assert stale.status == "stale" and 'metric "QWK" -> "MAE"' in stale.why
    (small_project / "project.yml").write_text(text.replace("QWK", "LogLoss"))
    project = ProjectFolder.open(small_project)
    settings = ["ensemble/checkpoint=common", "ensemble/methods=[greedy,stack]"]
    with pytest.raises(OutputError, match=r"200: has no class probabilities.*LogLoss needs"):
        ensemble(project, TARGET, settings, force=True)
    alone = ensemble(project, TARGET, [*settings, "ensemble/experiments=[output/100]"], force=True)
    assert "logloss" in alone.columns and alone["cross_fitted"].notna().all()
    # What the honest scores are of is kept, and is what runs are compared by.
    kept = np.load(output / "cross_fitted_probabilities.npy")
    targets = pd.read_csv(output / "cross_fitted_predictions.csv")["target"].to_numpy()
    assert kept.shape == (len(alone), 24, 4)
    losses = [-np.log(each[np.arange(24), targets]).mean() for each in kept]
    np.testing.assert_allclose(losses, alone["cross_fitted"])
    blend, single, of_values = (
        read_finished(f"output/{name}", small_project) for name in (900, 100, 200)
    )
    by_loss = compare_runs(single, blend)
    assert by_loss.metric.name == "LogLoss"
    assert by_loss.scores[1].score == pytest.approx(alone[alone["submit"]]["cross_fitted"].item())
    by_values = compare_runs(blend, of_values)
    assert by_values.metric.name == "RMSE"
    assert "compared by RMSE: one run has no probabilities for LogLoss" in by_values.notes
    with pytest.raises(ConfigError, match="metric LogLoss: needs class probabilities"):
        train(project, "exp_config/200.yml", ["model/pretrained=null"], force=True)
    assert (small_project / "output/200/fold0/manifest.json").is_file()
