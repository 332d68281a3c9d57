import json

import numpy as np
import pandas as pd
import pytest

from foldsmith.errors import OutputError
from foldsmith.steps.checkpoint_choice import choose, common_curve
from foldsmith.steps.manifest import Manifest
from foldsmith.steps.oof_summary import (
    logged_last,
    score_facts,
    with_decisions,
    with_selection_gap,
)
from foldsmith.targets.metrics import metric_named

# Validation metric of two folds: each has its own best epoch, the mean has another.
CURVES = ([0.9, 0.5, 0.6, 0.8], [0.9, 0.8, 0.5, 0.4])


@pytest.fixture
def trained(tmp_path):
    """The output of two trainings: logs, and the snapshots that are named."""

    def make(snapshots, greater_is_better=False):
        manifests = []
        for fold, curve in enumerate(CURVES):
            folder = tmp_path / f"fold{fold}"
            folder.mkdir(exist_ok=True)
            log = [{"epoch": k, "val/metric": v, "val/loss": v} for k, v in enumerate(curve, 1)]
            (folder / "log.json").write_text(json.dumps(log))
            outputs = {name: f"hash of {name}" for name in snapshots[fold]}
            for name in outputs:
                (folder / name).touch()
            facts = {"greater_is_better": greater_is_better}
            manifests.append(Manifest("train", {}, outputs, facts))
        return tmp_path, manifests

    return make


def epochs(root, manifests, checkpoint):
    return [choose(root, manifests[k], k, 2, checkpoint).epoch for k in range(2)]


def test_each_fold_has_its_best_epoch_in_the_direction_of_the_metric(trained):
    names = [[f"snapshot_by_metric_epoch_{k}.pth" for k in range(1, 5)]] * 2
    assert epochs(*trained(names), "metric") == [2, 4]
    assert epochs(*trained(names, greater_is_better=True), "metric") == [1, 1]
    # Losses fall whatever the metric does.
    names = [[f"snapshot_by_loss_epoch_{k}.pth" for k in range(1, 5)]] * 2
    assert epochs(*trained(names, greater_is_better=True), "loss") == [2, 4]


def test_a_common_epoch_is_the_best_of_the_mean_curve(trained):
    root, manifests = trained([[f"snapshot_epoch_{k}.pth" for k in range(1, 5)]] * 2)
    assert common_curve(root, 2) == pytest.approx([0.9, 0.65, 0.55, 0.6])
    assert epochs(root, manifests, "common") == [3, 3]
    chosen = choose(root, manifests[1], 1, 2, "common")
    assert chosen.source == root / "fold1/snapshot_epoch_3.pth"
    assert chosen.copy == root / "common_model_fold1.pth" and chosen.logged["val/metric"] == 0.5
    manifests = trained([[f"snapshot_epoch_{k}.pth" for k in range(1, 5)]] * 2, True)[1]
    assert epochs(root, manifests, "common") == [1, 1]


def test_a_common_epoch_may_have_been_kept_for_another_reason(trained):
    root, manifests = trained([["snapshot_by_metric_epoch_3.pth"], ["snapshot_last_epoch_3.pth"]])
    assert epochs(root, manifests, "common") == [3, 3]


def test_a_common_epoch_that_was_not_kept_says_what_to_do(trained):
    root, manifests = trained([["snapshot_by_metric_epoch_2.pth"]] * 2)
    with pytest.raises(OutputError, match=r"none of epoch 3. Set globals/snapshot_epochs: all"):
        choose(root, manifests[0], 0, 2, "common")
    root, manifests = trained([["snapshot_epoch_3.pth"]] * 2)
    (root / "fold0/snapshot_epoch_3.pth").unlink()
    with pytest.raises(OutputError, match="no such snapshot, nor its copy"):
        choose(root, manifests[0], 0, 2, "common")


def table(metric):
    folds = {"fold": [0, 1, "oof"], "epoch": [2, 4, None], "metric": metric}
    return pd.DataFrame(folds).astype({"epoch": "Int64"})


def test_the_gap_says_how_much_better_the_chosen_epochs_look():
    last = np.array([0.8, 0.4, 0.7])
    gaps = with_selection_gap(table([0.5, 0.4, 0.45]), last, metric_named("RMSE"))
    assert gaps["selection_gap"].tolist() == pytest.approx([0.3, 0, 0.25])
    assert score_facts(gaps)["selection_gap"] == pytest.approx(0.25)
    upwards = with_selection_gap(table([0.9, 0.4, 0.8]), last, metric_named("QWK"))
    assert upwards["selection_gap"].tolist() == pytest.approx([0.1, 0, 0.1])


def test_without_snapshots_the_gap_comes_from_the_logs(trained):
    root, manifests = trained(
        [["snapshot_by_metric_epoch_2.pth"], ["snapshot_by_metric_epoch_4.pth"]]
    )
    chosen = [choose(root, manifests[k], k, 2, "metric") for k in range(2)]
    # Scores with test-time augmentation, 0.1 lower than what was logged.
    last = logged_last(root, chosen, np.array([0.4, 0.3, 0.35]))
    np.testing.assert_allclose(last, [0.7, 0.3, np.nan])
    facts = score_facts(with_selection_gap(table([0.4, 0.3, 0.35]), last, metric_named("RMSE")))
    assert facts == {"metric": 0.35, "last_metric": None, "selection_gap": None}


def test_boundaries_have_a_score_of_their_own():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 4, 200).astype(np.float32)
    oof = 1.5 + 0.3 * (targets - 1.5)
    metric = metric_named("QWK", (0.0, 1.0, 2.0, 3.0))
    scores = with_selection_gap(table([0.1, 0.1, metric(oof, targets)]), np.ones(3), metric)
    scores = with_decisions(scores, oof, targets, np.arange(200) % 2, metric)
    assert scores["fold"].tolist() == [0, 1, "oof", "thresholds"]
    assert score_facts(scores)["metric_with_thresholds"] > 0.99 > score_facts(scores)["metric"]
