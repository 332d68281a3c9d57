"""Every kind of file x every kind of damage: noticed, and repaired or named in one line."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import pytest
from small_project import EXPERIMENTS, make_project, write_experiment
from test_faults import error_of
from warm import foldsmith

from foldsmith.errors import OutputError
from foldsmith.project import ProjectFolder
from foldsmith.run.plan import plan_of
from foldsmith.run.state import states_of
from foldsmith.steps.ensemble import ensemble
from foldsmith.utils.hashing import FileHashes

RUN = ["run", "--no-report", "-cfg", "exp_config/900.yml"]
QUICK = {"globals/max_epoch": 1, "loader/train/num_workers": 0}
FROZEN = {
    "import": "foldsmith:image_descriptors.yml",
    "globals/output_root": "output/310",
    "dataset/img_size": 32,
    "head": {"type": "RidgeHead"},
}

# Files of a finished project by what status has to say of when they are damaged: the step that
# wrote them is not done. Of equal kinds the first is tried.
OWNERS = {
    "input/preprocess_manifest.json": "preprocess",
    "input/img_info.csv": "preprocess",
    "input/stats_by_data.csv": "preprocess",
    "input/train_gkf-2fold.csv": "preprocess",
    "output/000/manifest.json": "pretrain 000",
    "output/000/backbone_epoch_1.pth": "pretrain 000",
    "output/000/resolved_config.yml": "pretrain 000",
    "output/100/fold0/manifest.json": "train 100 fold 0",
    "output/100/fold0/log.json": "train 100 fold 0",
    "output/100/fold0/resolved_config.yml": "train 100 fold 0",
    "output/100/best_metric_model_fold0.pth": "train 100 fold 0",
    "output/100/manifest_by_best_metric.json": "infer 100",
    "output/100/oof_prediction_by_best_metric.npy": "infer 100",
    "output/100/oof_prediction_by_best_metric.csv": "infer 100",
    "output/100/oof_logit_by_best_metric.npy": "infer 100",
    "output/100/test_logit_by_best_metric.npy": "infer 100",
    "output/100/score_by_best_metric.csv": "infer 100",
    "output/100/submission_by_best_metric.csv": "infer 100",
    "output/100/submission_by_best_metric_fold0.csv": "infer 100",
    "output/100/resolved_config.yml": "infer 100",
    "output/310/manifest_by_last.json": "fit 310",
    "output/310/train_features.npy": "fit 310",
    "output/310/test_features.npy": "fit 310",
    "output/310/head_fold0.safetensors": "fit 310",
    "output/310/oof_prediction_by_last.npy": "fit 310",
    "output/310/oof_prediction_by_last.csv": "fit 310",
    "output/310/submission_by_last.csv": "fit 310",
    "output/310/resolved_config.yml": "fit 310",
    "output/900/manifest.json": "ensemble 900",
    "output/900/blends.safetensors": "ensemble 900",
    "output/900/submission.csv": "ensemble 900",
    "output/900/weights.csv": "ensemble 900",
    "output/900/ensemble_scores.csv": "ensemble 900",
    "output/900/cross_fitted_predictions.csv": "ensemble 900",
    "output/900/resolved_config.yml": "ensemble 900",
}

# Files that no result depends on: for people, made again, or checked when they are read.
HARMLESS = (
    *("*.png", "*/sources/*", "*.lock", "*.owner.json", ".foldsmith/*", "*/tensorboard/*"),
    "output/000/log.json",
    "output/000/resume.pth",  # compared with its checksums when a training continues
    # Compared with the manifests before they are used.
    *(f"output/*/{label}_model_fold?.pth" for label in ("last", "best_loss", "common")),
    "output/310/features.json",  # without it the features are computed again
    "*/foldsmith.json",  # without it the manifests name the files
    "output/*/loggers.json",
)

# Of the same kind as one that is tried.
ALIKE = ("output/200/*", "*fold1*", "output/310/s*", "output/900/submission_*.csv")


@contextmanager
def put_away(path: Path) -> Iterator[None]:
    """Give a file back as it was, with its times, at the end."""
    kept = path.with_name(f".kept-{path.name}")
    shutil.copy2(path, kept)
    try:
        yield
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        kept.replace(path)


def delete(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap(path: Path) -> None:
    """Put the file of another run in its place: another fold's, or another experiment's."""
    name = path.name.replace("fold0", "fold1")
    others = [path.with_name(name), Path(str(path).replace("fold0", "fold1"))]
    others += [Path(str(path).replace("/100/", "/200/")), Path(str(path).replace("/310/", "/200/"))]
    others += sorted(path.parent.glob(f"*{path.suffix}"))
    project = next(folder for folder in path.parents if (folder / "project.yml").is_file())
    others += sorted(project.glob(f"output/*/*{path.suffix}"))
    content = path.read_bytes()
    differing = (o.read_bytes() for o in others if o.is_file() and o.read_bytes() != content)
    path.write_bytes(next(differing))


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = [delete, empty, truncate, flip, swap, replace_by_folder]
# What they change is only seen where a file is parsed: of the others the checksum is compared.
AS_A_FLIP = (empty, truncate, swap)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_images):
    folder = make_project(tmp_path_factory.mktemp("damage") / "project", small_images)
    for name in ("000", "100", "200"):
        backbone = {} if name == "000" else {"model/pretrained": "output/000/backbone_epoch_1.pth"}
        write_experiment(folder, name, EXPERIMENTS[name] | QUICK | backbone)
    write_experiment(folder, "310", FROZEN)
    members = ["output/100", "output/200", "output/310"]
    write_experiment(folder, "900", EXPERIMENTS["900"] | {"ensemble/experiments": members})
    result = foldsmith(folder, *RUN)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture(scope="module")
def plan(finished):
    return plan_of(ProjectFolder.open(finished), "exp_config/900.yml")


def test_every_file_is_owned_or_harmless(finished):
    experiments = [f"exp_config/{path.name}" for path in finished.glob("exp_config/*")]
    given = ("project.yml", "input/photos/*", "input/t*.csv", "input/mat*", "input/tech*")
    known = (*OWNERS, *HARMLESS, *ALIKE, *experiments, *given)
    files = [str(p.relative_to(finished)) for p in finished.rglob("*") if p.is_file()]
    unknown = [f for f in files if not any(fnmatch(f, pattern) for pattern in known)]
    assert not [f for f in unknown if not f.startswith("input/")]
    assert not [f for f in OWNERS if f not in files]


@pytest.mark.parametrize("damage", DAMAGES)
def test_status_notices(finished, plan, damage):
    hashes = FileHashes(Path(plan.project.hash_store))
    missed = []
    for file, owner in OWNERS.items():
        if damage in AS_A_FLIP and not file.endswith((".json", ".yml")):
            continue
        with put_away(finished / file):
            damage(finished / file)
            if states_of(plan, hashes)[owner].status == "done":
                missed.append(file)
    assert not missed
    states = states_of(plan, hashes)
    assert {state.status for state in states.values()} == {"done"}, states


RESULTS = ("weights.csv", "ensemble_scores.csv", "submission.csv", "cross_fitted_predictions.csv")


@pytest.mark.parametrize("damage", [flip, swap])
def test_a_run_repairs(finished, tmp_path, damage):
    folder = shutil.copytree(finished, tmp_path / "project")
    chosen = [
        *("output/000/resolved_config.yml", "output/100/fold0/resolved_config.yml"),
        *("output/100/resolved_config.yml", "output/100/oof_prediction_by_best_metric.npy"),
        *("output/310/train_features.npy", "output/310/head_fold0.safetensors"),
        *("output/900/submission.csv", "output/200/fold0/log.json"),
    ]
    for file in chosen:
        damage(folder / file)
    result = foldsmith(folder, *RUN)
    assert result.returncode == 0, result.stdout + result.stderr
    # What was only a record is written again without a training.
    assert "fold 0: finished already" in result.stdout
    for name in RESULTS:
        written = [(f / "output/900" / name).read_bytes() for f in (finished, folder)]
        assert written[0] == written[1], name
    assert "done" in foldsmith(folder, "status", "-cfg", "exp_config/900.yml").stdout
    project = ProjectFolder.open(folder)
    states = states_of(plan_of(project, "exp_config/900.yml"), FileHashes(project.hash_store))
    assert {state.status for state in states.values()} == {"done"}, states


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "file",
    [
        "output/310/oof_prediction_by_last.npy",
        "output/100/submission_by_best_metric.csv",
        "output/100/oof_logit_by_best_metric.npy",
    ],
)
def test_no_blend_is_made_of_damaged_predictions(finished, plan, file, damage):
    with put_away(finished / file):
        damage(finished / file)
        with pytest.raises(OutputError, match=Path(file).name):
            ensemble(plan.project, "exp_config/900.yml", force=True)


def test_a_command_names_a_damaged_file(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "project")
    for damage in (flip, replace_by_folder):
        for file, command in (
            ("output/100/fold0/log.json", ["infer", "-e", "output/100"]),
            ("output/310/oof_prediction_by_last.csv", ["ensemble", "-cfg", "exp_config/900.yml"]),
            ("input/train_gkf-2fold.csv", ["train", "-cfg", "exp_config/200.yml"]),
        ):
            force = ["-f"] if command[0] in ("ensemble", "train") else []
            with put_away(folder / file):
                damage(folder / file)
                assert Path(file).name in error_of(foldsmith(folder, *command, *force))
