"""After the training: inference, prediction, export, ONNX, heat maps and the service on a card."""

import shutil

import numpy as np
import pytest
import torch
from small_project import EXPERIMENTS, make_project, write_experiment

import foldsmith
from foldsmith.inference.saliency import grad_cam
from foldsmith.models.classifier import ImageModel
from foldsmith.predictor.export import export
from foldsmith.project.tables import image_paths, read_test
from foldsmith.report.heat_maps import look_at
from foldsmith.steps.infer import infer
from foldsmith.targets.classification import MultiClass

pytestmark = pytest.mark.cuda

# Predictions are in 0..3; in float32 they differ by the rounding of convolutions.
OFF = 5e-3


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_images, device):
    """A project after its ensemble, trained on the device."""
    folder = make_project(tmp_path_factory.mktemp("finished") / "project", small_images)
    quick = {
        "globals/device": device,
        "globals/max_epoch": 1,
        "globals/enable_amp": False,
        "globals/deterministic": False,
        "model/base_name": "test_resnet",
        "model/pretrained": None,
        "dataset/img_size": 48,
        "loader/train/num_workers": 0,
    }
    for name in ("100", "200"):
        write_experiment(folder, name, EXPERIMENTS[name] | quick)
    methods = {"ensemble/methods": ["mean", "simplex"]}
    write_experiment(folder, "900", EXPERIMENTS["900"] | methods)
    project = foldsmith.Project.open(folder)
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    project.run("900")
    yield project
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="module")
def images(finished):
    return image_paths(finished, read_test(finished))


@pytest.fixture(scope="module")
def predictor(finished, device):
    return foldsmith.load(finished.folder / "output/900", device=device)


def predictions(table):
    return table["prediction"].to_numpy(np.float64)


def test_trainings_log_their_memory(finished, device):
    for name in ("100", "200"):
        log = finished.results(name).log
        assert (log["host_mib"] > 0).all()
        assert ("cuda_mib" in log) == (device == "cuda")
        if device == "cuda":
            assert (log["cuda_mib"] > 0).all()


def test_predictions_are_those_of_the_run_and_of_the_cpu(finished, predictor, images):
    ours = predictions(predictor.predict(images))
    np.testing.assert_allclose(ours, finished.results("900").predictions["prediction"], atol=OFF)
    on_cpu = foldsmith.load(finished.folder / "output/900", device="cpu")
    np.testing.assert_allclose(ours, predictions(on_cpu.predict(images)), atol=OFF)
    # One by one as in a batch.
    single = [predictions(predictor.predict(path))[0] for path in images[:3]]
    np.testing.assert_allclose(single, ours[:3], atol=OFF)


def test_inference_on_the_cpu_says_what_the_card_has_said(finished, tmp_path):
    before = finished.results("200").oof
    other = tmp_path / "other"
    shutil.copytree(finished.folder, other)
    copied = foldsmith.Project.open(other)
    infer(copied, "output/200", overrides=["globals/device=cpu"])
    after = copied.results("200").oof
    columns = [name for name in before.columns if before[name].dtype.kind == "f"]
    np.testing.assert_allclose(before[columns], after[columns], atol=OFF)


@pytest.mark.parametrize("onnx", [False, True])
def test_an_export_predicts_the_same(finished, images, device, tmp_path, onnx, request):
    if onnx:
        request.getfixturevalue("on_card_only")
        for name in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(name)
    root = finished.folder / ("output/200" if onnx else "output/900")
    folder = export(root, tmp_path / "exported", onnx=onnx)
    ours = predictions(foldsmith.load(folder, device=device).predict(images))
    theirs = predictions(foldsmith.load(root, device=device).predict(images))
    np.testing.assert_allclose(ours, theirs, atol=OFF)


def test_heat_maps_are_those_of_the_cpu(device):
    torch.manual_seed(0)
    task = MultiClass((0.0, 1.0, 2.0))
    model = ImageModel("test_resnet", [None, 3], backbone_options={"options": {"output_stride": 8}})
    images = torch.randn(4, 3, 48, 48)
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    on_cpu = grad_cam(model.eval(), images, task.explained())
    ours = grad_cam(model.to(device), images.to(device), task.explained())
    torch.backends.cudnn.allow_tf32 = before
    np.testing.assert_allclose(ours, on_cpu, atol=1e-2)


def test_a_report_finds_where_models_look(finished):
    looked, text = look_at(finished, finished.folder / "output/100", "metric", [0, 1])
    assert len(looked) == 2 and "winning class" in text
    assert all(np.isfinite(each.heat).all() for each in looked)


def test_the_service_answers_what_predict_says(predictor, images):
    for name in ("fastapi", "httpx", "python_multipart"):
        pytest.importorskip(name)
    from fastapi.testclient import TestClient

    from foldsmith.extras.serve.limits import Limits
    from foldsmith.extras.serve.service import create_app

    client = TestClient(create_app(predictor, "900", Limits()))
    sent = [("file", (path.name, path.read_bytes())) for path in images]
    answers = [client.post("/predict", files=sent) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    for answer in answers:
        found = [entry["prediction"] for entry in answer.json()["predictions"]]
        np.testing.assert_allclose(found, predictions(predictor.predict(images)), atol=OFF)
