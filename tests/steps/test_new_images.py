"""New images: predicting the test images again has to give what the run has submitted."""

import json
import random
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from blended_run import MEMBERS, RUN, equal, images_of, submitted
from PIL import Image
from small_project import write_experiment

import foldsmith as package
from foldsmith.blending import stacking
from foldsmith.errors import ConfigError, OutputError
from foldsmith.predictor.export import export
from foldsmith.project import ProjectFolder
from foldsmith.steps.ensemble import ensemble
from foldsmith.steps.infer import infer
from foldsmith.steps.train_command import train


def test_the_test_images_get_what_was_submitted(blended, predictor, predicted):
    assert predicted.columns.tolist() == ["path", "prediction", "spread"]
    assert predicted["path"].tolist() == [str(path) for path in images_of(blended)]
    equal(predicted["prediction"], submitted(blended, f"{RUN}/submission.csv"))
    assert (
        predictor.blend
        == json.loads((blended / RUN / "manifest.json").read_text())["facts"]["submit"]
    )


def test_the_spread_is_that_of_the_members(blended):
    mean = package.load(blended / RUN, blend="avg-all")
    table = mean.predict(images_of(blended))
    equal(table["prediction"], submitted(blended, f"{RUN}/submission_avg_all.csv"))
    assert table["prediction"].nunique() > 4
    assert len(mean.members) > 1 and set(mean.members) <= {"100", "200", "300"}
    files = [f"output/{name}/submission_by_last.csv" for name in mean.members]
    equal(table["spread"], np.std([submitted(blended, file) for file in files], axis=0))


def test_every_blend_is_the_one_of_its_submission(blended):
    names = pd.read_csv(blended / RUN / "ensemble_scores.csv")["name"].tolist()
    assert {"avg-cls", "wopt-all", "ridge", "stack", "simplex+isotonic"} < set(names)
    images = images_of(blended)
    for name in ("avg-cls", "wopt-all", "ridge", "best", "stack", "simplex+isotonic"):
        found = package.load(blended / RUN, blend=name).predict(images)["prediction"]
        file = name.replace("wopt", "weight_optimization").replace("-", "_").replace("+", "_")
        equal(found, submitted(blended, f"{RUN}/submission_{file}.csv"))
    with pytest.raises(ConfigError, match=r"no blend 'rigde' \(did you mean ridge\?\)"):
        package.load(blended / RUN, blend="rigde")


def test_members_without_a_say_are_not_opened_and_do_not_count(blended_copy, tmp_path):
    images = images_of(blended_copy)
    whole = package.load(blended_copy / RUN, blend="avg-all")
    wanted = submitted(blended_copy, f"{RUN}/submission_best.csv")
    best = package.load(blended_copy / RUN, blend="best")
    (name,) = best.members
    for folder in {"100", "200", "300"} - {name}:
        for file in (blended_copy / "output" / folder).glob("*"):
            if file.suffix in (".pth", ".safetensors"):
                file.unlink()
    best = package.load(blended_copy / RUN, blend="best")
    assert best.members == [name] and len(best.models) == 1
    table = best.predict(images)
    equal(table["prediction"], wanted)
    # Of one member it is that of its folds, as if it were asked alone.
    alone = package.load(blended_copy / "output" / name, checkpoint="last").predict(images)
    equal(table["spread"], alone["spread"])
    assert not np.allclose(table["spread"], whole.predict(images)["spread"])
    export(blended_copy / RUN, tmp_path / "kept", blend="best")
    assert [path.name for path in (tmp_path / "kept/members").iterdir()] == [name]
    pd.testing.assert_frame_equal(package.load(tmp_path / "kept").predict(images), table, rtol=1e-5)


def test_a_stack_knows_new_images_as_it_knew_the_old(blended_copy, monkeypatch):
    # With leaves as small as this the trees look at size, colours and probabilities.
    monkeypatch.setitem(stacking._TREES, "min_samples_leaf", 2)
    ensemble(ProjectFolder.open(blended_copy), "exp_config/900.yml", force=True)
    stack = package.load(blended_copy / RUN, blend="stack")
    table = stack.predict(images_of(blended_copy))
    equal(table["prediction"], submitted(blended_copy, f"{RUN}/submission_stack.csv"))
    forest = stack.fitted_blend.fitted.forest
    assert len(forest.value) / len(forest.roots) > 3
    # Nothing is fitted again: what it was fitted to may go.
    (blended_copy / "input/img_info.csv").unlink()
    package.load(blended_copy / RUN, blend="stack")


@pytest.mark.parametrize(("metric", "members"), [("QWK", None), ("LogLoss", ["output/100"])])
def test_predictions_are_rounded_as_the_metric_wants(blended_copy, metric, members):
    path = blended_copy / "project.yml"
    path.write_text(path.read_text() + f"metric: {metric}\n")
    with pytest.raises(OutputError, match=r'100: .*metric "RMSE" -> "' + metric):
        package.load(blended_copy / RUN)
    project = ProjectFolder.open(blended_copy)
    chosen = members or MEMBERS["900"]["ensemble/experiments"]
    for member in chosen[:2]:
        infer(project, member, "last")
    if members is None:
        train(project, "exp_config/300.yml", resume=True)
    of = [f"ensemble/experiments={json.dumps(chosen)}", "ensemble/calibrate=none"]
    ensemble(project, "exp_config/900.yml", of, force=True)
    images = images_of(blended_copy)
    for blend in ("avg-all", "greedy", "stack"):
        found = package.load(blended_copy / RUN, blend=blend).predict(images)["prediction"]
        file = f"{RUN}/submission_{blend.replace('-', '_')}.csv"
        equal(found, submitted(blended_copy, file))
        if metric == "QWK":
            assert set(found) <= {0, 1, 2, 3}
        elif blend != "stack":  # whose trees have too few rows here
            assert found.nunique() > 4


def test_a_single_experiment_is_the_mean_of_its_folds(blended):
    images = images_of(blended)
    for name in ("100", "200", "300"):
        folder = blended / "output" / name
        table = package.load(folder).predict(images)
        equal(table["prediction"], submitted(folder, "submission_by_last.csv"))
        folds = [submitted(folder, f"submission_by_last_fold{k}.csv") for k in range(2)]
        equal(table["spread"], np.std(folds, axis=0))
    with pytest.raises(ConfigError, match="it has no blend 'ridge'"):
        package.load(folder, blend="ridge")


def test_what_inference_was_told_holds_for_new_images(blended_copy):
    project, images = ProjectFolder.open(blended_copy), images_of(blended_copy)
    root = blended_copy / "output/200"
    before = package.load(root).predict(images)["prediction"]
    more = ["globals/tta=flips", "dataset/val/transforms/pad/border=reflect"]
    infer(project, "output/200", "metric", overrides=more)
    with pytest.raises(ConfigError, match="was inferred by metric and by last; say which"):
        package.load(root)
    after = package.load(root, checkpoint="metric").predict(images)["prediction"]
    equal(after, submitted(root, "submission_by_best_metric.csv"))
    assert np.abs(after - before).max() > 1e-4
    equal(package.load(root, checkpoint="last").predict(images)["prediction"], before)


def test_a_frozen_backbone_of_random_weights_is_the_same_one(blended_copy):
    write_experiment(blended_copy, "310", MEMBERS["300"] | {"model/pretrained": None})
    to = "globals/output_root=output/310"
    root = train(ProjectFolder.open(blended_copy), "exp_config/310.yml", [to])
    table = package.load(root).predict(images_of(blended_copy))
    equal(table["prediction"], submitted(root, "submission_by_last.csv"))


def test_arrays_and_pil_images_are_as_good_as_files(blended, predictor, predicted, tmp_path):
    arrays = [cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) for path in images_of(blended)]
    table = predictor.predict(arrays)
    assert table["path"].isna().all()
    equal(table["prediction"], predicted["prediction"])
    # Neither contiguous nor RGB in its own right.
    mirrored = [np.ascontiguousarray(array[:, ::-1])[:, ::-1] for array in arrays]
    pngs = [tmp_path / f"{k}.png" for k in range(len(arrays))]
    for path, array in zip(pngs, arrays, strict=True):
        Image.fromarray(array).save(path)
    mixed = [mirrored[0], Image.open(pngs[1]), str(pngs[2]), Image.fromarray(arrays[3]), pngs[4]]
    equal(predictor.predict(iter(mixed))["prediction"], predicted["prediction"][:5], 1e-4)
    # One image is an image, and several arrays may be one.
    for one in (arrays[0], Image.open(pngs[0]), str(pngs[0])):
        equal(predictor.predict(one)["prediction"], predicted["prediction"][:1], 1e-4)
    twice = np.stack([arrays[0], arrays[0]])
    equal(predictor.predict(twice)["prediction"], predicted["prediction"][[0, 0]], 1e-4)


def test_a_image_on_its_side_is_turned_for_every_kind(blended, predictor, tmp_path):
    upright = Image.open(images_of(blended)[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = tmp_path / "turned.png"
    upright.rotate(90, expand=True).save(turned, exif=exif)
    table = predictor.predict([turned, Image.open(turned), np.array(upright)])
    equal(table["prediction"][1:], table["prediction"][[0, 0]], 1e-4)


def test_memory_is_taken_in_parts(blended, predictor, predicted, monkeypatch):
    monkeypatch.setattr(sys.modules["foldsmith.predictor.predictor"], "_CHUNK_BYTES", 8_000)
    asked = []
    logits = predictor.models[0].logits
    monkeypatch.setattr(
        predictor.models[0],
        "logits",
        lambda images: (asked.append(len(images)), logits(images))[1],
    )
    table = predictor.predict(images_of(blended))
    equal(table["prediction"], predicted["prediction"], 1e-4)
    assert len(asked) > 1 and sum(asked) == len(table)


def test_what_was_learned_from_may_go(blended_copy):
    wanted = submitted(blended_copy, f"{RUN}/submission.csv")
    images = images_of(blended_copy)
    ProjectFolder.open(blended_copy).fold_table.unlink()
    (blended_copy / "input/train.csv").unlink()
    (blended_copy / "output/300/train_features.npy").unlink()
    equal(package.load(blended_copy / RUN).predict(images)["prediction"], wanted)


def test_random_numbers_of_others_stay_as_they_are(blended):
    def drawn():
        return [random.random(), np.random.rand(), torch.rand(()).item()]

    np.random.seed(1)
    random.seed(1)
    torch.manual_seed(1)
    wanted = drawn()
    np.random.seed(1)
    random.seed(1)
    torch.manual_seed(1)
    package.load(blended / RUN).predict(np.zeros((8, 8, 3), np.uint8))
    assert drawn() == wanted
