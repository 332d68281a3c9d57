"""A test table without rows: everything runs, and the submissions are empty."""

import numpy as np
import pandas as pd


def test_all_stages_bear_an_empty_test_table(small_project, cli):
    test = small_project / "input/test.csv"
    test.write_text(test.read_text().splitlines()[0] + "\n")
    short = ["1*:globals/max_epoch=1", "2*:globals/max_epoch=1"]
    said = cli(small_project, "run", "-cfg", "exp_config/900.yml", *short).stdout
    assert "24 labelled images, 0 to predict" in said
    assert "(the test table has no rows: the submissions are empty)" in said
    output = small_project / "output"
    # Two folds, four classes.
    assert np.load(output / "100/test_logit_by_best_metric.npy").shape == (2, 0, 4)
    for name in ("100/submission_by_best_metric.csv", "900/submission.csv"):
        table = pd.read_csv(output / name)
        assert (table.columns.tolist(), len(table)) == (["object_id", "target"], 0)
    assert len(pd.read_csv(output / "100/oof_prediction_by_best_metric.csv")) == 24
    assert "0 to predict" in cli(small_project, "doctor").stdout
