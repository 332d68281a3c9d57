"""Classes with a single labelled image: in some fold, judged by models that never saw them."""

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from warm import foldsmith

CLASSES = {"ash": ((200, 60, 60), 7), "oak": ((60, 200, 60), 6), "yew": ((60, 60, 200), 1)}
EXPERIMENTS = {
    "400": {
        "import": "foldsmith:image_descriptors_classes.yml",
        "globals/output_root": "output/400",
        "dataset/img_size": 32,
        "head": {"type": "LogisticHead", "class_values": "@/project.class_values", "C": [1.0]},
    },
    "410": {
        "import": "foldsmith:multi_class.yml",
        "globals/output_root": "output/410",
        "globals/max_epoch": 1,
        "globals/device": "cpu",
        "model/base_name": "test_resnet",
        "dataset/img_size": 32,
        "loader/train/batch_size": 4,
    },
    "901": {
        "import": "foldsmith:recommended_ensemble.yml",
        "globals/output_path": "output/901",
        "ensemble/methods": ["mean", "simplex"],
        "ensemble/experiments": ["output/400", "output/410"],
    },
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project of three classes, of which one has a single image, after its run by accuracy."""
    folder, rng = tmp_path_factory.mktemp("rare"), np.random.default_rng(0)
    (folder / "input/images").mkdir(parents=True)
    names = [name for name, (_, n) in CLASSES.items() for _ in range(n)]
    for k, name in enumerate([*names, *CLASSES]):
        pixels = np.array(CLASSES[name][0]) + rng.integers(-50, 50, (32, 32, 3))
        cv2.imwrite(str(folder / f"input/images/{k}.png"), pixels.clip(0, 255).astype(np.uint8))
    pd.DataFrame({"id": np.arange(len(names)), "tree": names}).to_csv(
        folder / "input/train.csv", index=False
    )
    test = pd.DataFrame({"id": np.arange(len(names), len(names) + len(CLASSES))})
    test.to_csv(folder / "input/test.csv", index=False)
    settings = {
        **{"name": "trees", "image_path": "images/{id}.png", "id_column": "id"},
        **{"target_column": "tree", "class_names": list(CLASSES), "metric": "Accuracy"},
        **{"folds": {"method": "StratifiedKFold", "n_splits": 3}},
    }
    (folder / "project.yml").write_text(yaml.safe_dump(settings))
    (folder / "exp_config").mkdir()
    for name, tree in EXPERIMENTS.items():
        (folder / f"exp_config/{name}.yml").write_text(yaml.safe_dump(tree))
    result = foldsmith(folder, "run", "-cfg", "exp_config/901.yml")
    assert result.returncode == 0, result.stdout + result.stderr
    said = result.stdout + result.stderr
    assert "yew 1; a class with a single image is judged by models" in said
    assert "warning: the report" not in said
    return folder


def test_every_image_has_a_prediction_and_every_class_a_probability(made):
    for name in ("400", "410"):
        logits = np.load(made / f"output/{name}/oof_logit_by_last.npy")
        assert logits.shape == (14, 3) and np.isfinite(logits).all()
        oof = pd.read_csv(made / f"output/{name}/oof_prediction_by_last.csv").set_index("tree")
        # No model that judges it has seen one.
        assert oof.loc["yew", "prediction"] != "yew"
    page = next((made / "reports").rglob("*.html")).read_text()
    assert "Traceback" not in page and all(name in page for name in CLASSES)


@pytest.mark.parametrize("metric", ["LogLoss", "AUC"])
def test_metrics_judge_them(made, cli, metric):
    file = made / "project.yml"
    file.write_text(file.read_text().replace("metric: Accuracy", f"metric: {metric}"))
    said = cli(made, "run", "-cfg", "exp_config/901.yml", "--no-report").stdout
    file.write_text(file.read_text().replace(f"metric: {metric}", "metric: Accuracy"))
    scores = pd.read_csv(made / "output/901/ensemble_scores.csv")
    assert np.isfinite(scores["cross_fitted"]).all() and f"{metric}" in said
    submission = pd.read_csv(made / "output/901/submission.csv")
    assert len(submission) == len(CLASSES) and not submission.isna().any().any()
