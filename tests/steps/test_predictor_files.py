"""An exported predictor has to say elsewhere what the run says, with nothing of the project."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file
from small_project import EXPERIMENTS, make_project, write_experiment
from warm import foldsmith

import foldsmith as package
from foldsmith.errors import ConfigError, OutputError
from foldsmith.models.fitted_arrays import read_arrays
from foldsmith.predictor import files as predictor_files
from foldsmith.predictor.export import export
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import image_paths, read_test
from foldsmith.utils.hashing import hash_file, hash_value

QUICK = {"globals/max_epoch": 1, "loader/train/num_workers": 0, "model/pretrained": None}
OWN = """
from foldsmith.data.transforms import Resize

class HalfSize(Resize):
    \"\"\"A transform of the project itself.\"\"\"

TYPES = {"HalfSize": HalfSize}
"""
TRANSFORMS = [
    {"type": "HalfSize", "height": "@/dataset/img_size", "width": "@/dataset/img_size"},
    {"type": "Normalize", "mean": "@/dataset/ch_mean_norm", "std": "@/dataset/ch_std_norm"},
]
DESCRIPTORS = {
    "import": "foldsmith:image_descriptors.yml",
    "globals/output_root": "output/310",
    "dataset/img_size": 32,
    "head": {
        "type": "MeanHead",
        "heads": [
            {"type": "RidgeHead"},
            {"type": "SVRHead"},
            {"type": "TreesHead", "n_trees": 20},
            {"type": "MLPHead", "epochs": 2},
        ],
    },
}
# Also where the CPU only emulates it: ONNX Runtime has float32.
BF16 = {"globals/amp_dtype": "bf16"}
MEMBERS = {
    "100": EXPERIMENTS["100"] | QUICK | {"dataset/mixup": None},
    "200": EXPERIMENTS["200"] | QUICK | BF16 | {"globals/tta": "hflip"},
    # A backbone of random weights is one that only the file can know.
    "300": BF16
    | {
        "import": "foldsmith:frozen_features.yml",
        "globals/output_root": "output/300",
        "model/base_name": "test_resnet",
        "dataset/img_size": 32,
        "dataset/val/transforms": TRANSFORMS,
    },
    "310": DESCRIPTORS,
    "900": EXPERIMENTS["900"]
    | {
        "ensemble/experiments": ["output/100", "output/200", "output/300", "output/310"],
        "ensemble/calibrate": "isotonic",
        "ensemble/checkpoint": "last",
    },
}
RUN = "output/900"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_images):
    folder = make_project(tmp_path_factory.mktemp("finished") / "project", small_images)
    (folder / "own").mkdir()
    (folder / "own/transforms.py").write_text(OWN)
    with (folder / "project.yml").open("a") as file:
        file.write("python: [own/transforms.py]\n")
    for name, content in MEMBERS.items():
        write_experiment(folder, name, content)
    result = foldsmith(folder, "run", "--no-report", "-cfg", "exp_config/900.yml")
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture(scope="module")
def images(finished, tmp_path_factory):
    """The test images, away from the project."""
    folder = tmp_path_factory.mktemp("images")
    project = ProjectFolder.open(finished)
    return [shutil.copy(path, folder) for path in image_paths(project, read_test(project))]


def submitted(folder, file):
    return pd.read_csv(folder / file)["target"].to_numpy()


@pytest.fixture
def gone(finished):
    """Takes the project away while a test runs."""
    hidden = finished.with_name("hidden")

    def hide():
        finished.rename(hidden)

    yield hide
    if hidden.exists():
        hidden.rename(finished)


def test_an_export_with_python_asks_each_time(finished, images, tmp_path, cli, monkeypatch):
    monkeypatch.delenv("FOLDSMITH_TRUST_PYTHON")
    # The project's is remembered; that of an export, which is made to be passed on, is not.
    cli(finished, "status", "--trust-python")
    kept = tmp_path / "kept"
    cli(finished, "export", "--run", RUN, str(kept))
    assert "trust=True" in (kept / "README.md").read_text()
    mark = tmp_path / "ran"
    with (kept / "python/0/transforms.py").open("a") as file:
        file.write(f"open({str(mark)!r}, 'w').close()\n")
    # As one who makes an export for others can.
    content = json.loads((kept / "predictor.json").read_text())
    content["files"]["python/0/transforms.py"] = hash_file(kept / "python/0/transforms.py")
    rest = {key: value for key, value in content.items() if key != "sha256"}
    (kept / "predictor.json").write_text(json.dumps(rest | {"sha256": hash_value(rest)}))
    arguments = ("predict", "--run", str(kept), images[0])
    for command in (arguments, ("serve", "--run", str(kept), "--port", "0")):
        (line,) = cli(tmp_path, *command, code=2).stderr.splitlines()
        assert line.startswith(f"foldsmith: error: {kept}/project.yml: python: ")
        assert "python/0/transforms.py" in line and "--trust-python" in line
    with pytest.raises(ConfigError, match="trust=True"):
        package.load(kept)
    assert not mark.exists()
    said = cli(tmp_path, *arguments, "--trust-python").stdout
    assert mark.exists() and str(images[0]) in said
    cli(tmp_path, *arguments, code=2)
    assert len(package.load(kept, trust=True).predict(images)) == len(images)


@pytest.mark.parametrize("blend", ["avg-all", "stack", "simplex+isotonic", None])
def test_it_predicts_without_the_project(finished, images, gone, tmp_path, cli, blend):
    chosen = ["--blend", blend] if blend else []
    printed = cli(finished, "export", "--run", RUN, str(tmp_path / "kept"), *chosen).stdout
    assert "images of the project are within" in printed
    name = blend or json.loads((finished / RUN / "manifest.json").read_text())["facts"]["submit"]
    wanted = submitted(finished, f"{RUN}/submission_{name.replace('-', '_').replace('+', '_')}.csv")
    of_members = {
        k: submitted(finished, f"output/{k}/submission_by_last.csv") for k in MEMBERS if k < "9"
    }
    gone()
    moved = (tmp_path / "kept").rename(tmp_path / "moved")
    predictor = package.load(moved)
    assert predictor.blend == name
    # Members that have no say in the blend stay behind.
    assert set(predictor.members) <= set(of_members) and len(predictor.members) > 1
    table = predictor.predict(images)
    np.testing.assert_allclose(table["prediction"], wanted, rtol=0, atol=1e-6)
    assert table["prediction"].nunique() > 2 or name == "constant"
    members = [of_members[k] for k in predictor.members]
    np.testing.assert_allclose(table["spread"], np.std(members, axis=0), rtol=0, atol=1e-6)
    cli(tmp_path, "predict", "--run", "moved", *images[:2], "-o", "out.csv")
    assert pd.read_csv(tmp_path / "out.csv")["prediction"].tolist() == pytest.approx(wanted[:2])
    kinds = {path.suffix for path in moved.rglob("*") if path.is_file()}
    assert kinds == {".json", ".yml", ".safetensors", ".md", ".py"}


def test_a_single_experiment_too(finished, images, tmp_path):
    folder = export(finished / "output/200", tmp_path / "one", checkpoint="last")
    table = package.load(folder).predict(images)
    wanted = submitted(finished, "output/200/submission_by_last.csv")
    np.testing.assert_allclose(table["prediction"], wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "networks"), [("200", ["fold0.onnx", "fold1.onnx"]), ("300", ["backbone.onnx"])]
)
def test_onnx_predicts_the_same(finished, images, gone, tmp_path, cli, name, networks):
    run, kept = f"output/{name}", tmp_path / "kept"
    chosen = ["-cri", "last", "--onnx"]
    printed = cli(finished, "export", "--run", run, str(kept), *chosen).stdout
    assert "images of the project are within" in printed
    assert "in float32; the run's own rounding changes them by" in printed
    wanted = submitted(finished, f"{run}/submission_by_last.csv")
    exact = predictor_files._in_float32(package.load(finished / run, checkpoint="last"))
    in_float32 = exact.predict(images)
    gone()
    member = kept / "members" / name
    assert sorted(path.name for path in member.glob("*.onnx")) == networks
    # Weights are not there twice; what the heads have learned is, and the target scale of folds.
    arrays = read_arrays(member / "weights.safetensors")
    if name == "200":
        assert arrays.keys() == {"fold0.target_scale", "fold1.target_scale"}
    else:
        assert not any(key.startswith("backbone.") for key in arrays)
    table = package.load(kept).predict(images)
    np.testing.assert_allclose(table["prediction"], in_float32["prediction"], rtol=0, atol=1e-4)
    # The run had bfloat16 where ONNX Runtime has float32.
    assert np.abs(table["prediction"] - wanted).max() < 0.2 * np.std(wanted)


def test_an_earlier_export_is_replaced_when_asked(finished, images, tmp_path):
    export(finished / RUN, tmp_path, blend="avg-all")
    with pytest.raises(OutputError, match="holds an export already; add -f"):
        export(finished / "output/200", tmp_path)
    export(finished / "output/200", tmp_path, checkpoint="last", force=True)
    assert [path.name for path in (tmp_path / "members").iterdir()] == ["200"]
    assert not (tmp_path / "blend.safetensors").exists()
    assert package.load(tmp_path).predict(images[:1])["prediction"].notna().all()


def test_what_is_no_export_is_not_replaced(finished, tmp_path, monkeypatch, cli):
    before = (finished / "project.yml").read_text()
    said = cli(finished, "export", "--run", RUN, ".", "-f", code=2).stderr
    assert "holds other files, and no export; name a folder of its own" in said
    assert (finished / "project.yml").read_text() == before
    # An earlier export stays until the next one is whole.
    export(finished / RUN, tmp_path / "kept", blend="avg-all")

    def fail(*_):
        raise OutputError("no room")

    monkeypatch.setattr(predictor_files, "_compared", lambda *_, **__: fail())
    with pytest.raises(OutputError, match="no room"):
        export(finished / RUN, tmp_path / "kept", blend="stack", force=True)
    assert package.load(tmp_path / "kept").blend == "avg-all"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_what_does_not_fit_a_run_is_said(finished, tmp_path):
    with pytest.raises(ConfigError, match="is no pretraining"):
        export(finished / RUN, tmp_path / "a", pick="last")
    with pytest.raises(ConfigError, match=r"has no blend 'avg-al' \(did you mean avg-all"):
        export(finished / RUN, tmp_path / "a", blend="avg-al")
    with pytest.raises(ConfigError, match="is an ensemble"):
        export(finished / RUN, tmp_path / "a", checkpoint="last")
    assert not (tmp_path / "a").exists()


def test_a_file_of_the_project_is_not_forgotten(finished, tmp_path):
    """A transform that reads the project's files predicts otherwise, or not at all, elsewhere."""
    folder = shutil.copytree(finished, tmp_path / "project")
    own = folder / "own/transforms.py"
    reads = OWN.replace(
        "class HalfSize(Resize):",
        "from pathlib import Path\n\nclass HalfSize(Resize):\n"
        "    def __init__(self, height, width):\n"
        "        known = Path(__file__).with_name('sizes.txt').exists()\n"
        "        super().__init__(height if known else 8, width)\n",
    )
    own.write_text(reads)
    (folder / "own/sizes.txt").write_text("here")
    result = foldsmith(folder, "run", "--no-report", "-cfg", "exp_config/900.yml")
    assert result.returncode == 0, result.stdout + result.stderr
    with pytest.raises(OutputError, match="the project's own Python reads files"):
        export(folder / RUN, tmp_path / "kept", blend="avg-all")
    assert not (tmp_path / "kept/predictor.json").exists()


@pytest.fixture
def exported(finished, tmp_path):
    return export(finished / RUN, tmp_path / "exported", blend="avg-all")


def rewrite(path, change):
    arrays = load_file(path)
    change(arrays)
    save_file(arrays, path)


def replace(path, before, after):
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


CHANGED = "was changed since the export was written; put it back, or export the run again"


@pytest.mark.parametrize(
    ("file", "act", "message"),
    [
        ("predictor.json", lambda p: p.write_text("{"), "is damaged; export the run again"),
        ("predictor.json", lambda p: p.write_text('{"format": 2}'), "is damaged"),
        (
            "predictor.json",
            lambda p: p.write_text(p.read_text().replace('"format": 2', '"format": 3')),
            "in a form that this one .* does not know",
        ),
        ("members/100/weights.safetensors", lambda p: p.unlink(), "no such file"),
        ("members/100/weights.safetensors", lambda p: p.write_bytes(b"x" * 99), CHANGED),
        (
            "members/100/weights.safetensors",
            lambda p: rewrite(p, lambda arrays: arrays.pop("fold0.backbone.conv1.0.weight")),
            CHANGED,
        ),
        ("blend.safetensors", lambda p: p.unlink(), "blend.safetensors: no such file"),
        ("members/300/experiment.yml", lambda p: p.unlink(), "experiment.yml"),
        # Sound files, with other content than was exported.
        (
            "blend.safetensors",
            lambda p: rewrite(p, lambda arrays: None),
            "blend.*was changed since",
        ),
        (
            "members/100/experiment.yml",
            lambda p: replace(p, "img_size: 32", "img_size: 48"),
            CHANGED,
        ),
        ("project.yml", lambda p: replace(p, "metric: RMSE", "metric: MAE"), CHANGED),
        ("predictor.json", lambda p: replace(p, '"avg-all"', '"stack"'), "checksum does not match"),
        (
            "members/100/weights.safetensors",
            lambda p: p.write_bytes((p.parents[1] / "200/weights.safetensors").read_bytes()),
            CHANGED,
        ),
        ("members/100/weights.safetensors", flip, CHANGED),
        ("members/100/weights.safetensors", lambda p: (p.unlink(), p.mkdir()), "no such file"),
    ],
)
def test_damage_is_named(exported, file, act, message):
    act(exported / file)
    with pytest.raises((OutputError, ConfigError), match=message):
        package.load(exported)


def test_the_choice_was_made(exported):
    with pytest.raises(ConfigError, match="was made of one blend and one checkpoint"):
        package.load(exported, blend="stack")
