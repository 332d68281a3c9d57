"""Files of the user's: no step removes or replaces what it did not write."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_project import EXPERIMENTS, make_project, write_experiment

from foldsmith.errors import ConfigError, OutputError
from foldsmith.project import ProjectFolder
from foldsmith.run.dry_run import dry_run
from foldsmith.run.engine import run
from foldsmith.run.status import status
from foldsmith.steps.check import check
from foldsmith.steps.ensemble import ensemble
from foldsmith.steps.infer import infer
from foldsmith.steps.preprocess import preprocess
from foldsmith.steps.pretrain import pretrain
from foldsmith.steps.train_command import train
from foldsmith.utils.owned_files import OwnedFiles

# A small head on random features, fine-tunings of an epoch, and an ensemble of both.
QUICK = {"globals/max_epoch": 1, "model/pretrained": None, "dataset/img_size": 32}
EXPERIMENTS_HERE = {
    "000": EXPERIMENTS["000"] | {"globals/max_epoch": 1},
    "200": EXPERIMENTS["200"] | QUICK,
    "300": {
        "import": "foldsmith:frozen_features.yml",
        "globals/output_root": "output/300",
        "model/base_name": "test_resnet",
        "dataset/img_size": 32,
    },
    "900": EXPERIMENTS["900"]
    | {"ensemble/experiments": ["output/200", "output/300"], "ensemble/n_trials": 2},
}


def project_in(folder: Path, images: Path) -> ProjectFolder:
    made = make_project(folder, images)
    for name, content in EXPERIMENTS_HERE.items():
        write_experiment(made, name, content)
    (made / "exp_config/100.yml").unlink()
    return ProjectFolder.open(made)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_images):
    """A project in which every kind of step has been run."""
    project = project_in(tmp_path_factory.mktemp("finished") / "project", small_images)
    run(project, "exp_config/000.yml")
    run(project, "exp_config/900.yml", keep_snapshots=True)
    return project


@pytest.fixture
def project(tmp_path, small_images):
    """A project in which nothing has been done."""
    return project_in(tmp_path / "project", small_images)


def content_of(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, without locks and what foldsmith remembers."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".") and ".foldsmith" not in path.parts
    }


# Names that foldsmith's own files have in one of its folders, or nearly.
NAMES = (
    *("notes.txt", "mine.png", "snapshot_epoch_7.pth", "snapshot_mine.pth", "best.pth"),
    *(
        "backbone_epoch_77.pth",
        "submission_mine.csv",
        "table.csv",
        "a_by_b.csv",
        "probabilities.csv",
    ),
    *("mine_model_fold0.pth", "manifest_by_mine.json", "sources/mine.py", "tensorboard/mine.txt"),
    *("sources/exp_config/mine.yml", "cross_fitted_probabilities.npy", "probabilities.csv"),
)


def test_every_step_leaves_the_files_of_others(finished):
    folders = ["input", "output/000", "output/200", "output/200/fold0", "output/300", "output/900"]
    theirs = {}
    for folder in folders:
        for name in NAMES:
            path = finished.folder / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{folder} {name}")
            theirs[path] = path.read_bytes()
    preprocess(finished)
    pretrain(finished, "exp_config/000.yml", force=True)
    train(finished, "exp_config/200.yml", force=True)
    infer(finished, "output/200")
    train(finished, "exp_config/300.yml", force=True)
    ensemble(finished, "exp_config/900.yml", force=True)
    assert {path: path.read_bytes() for path in theirs if path.exists()} == theirs
    for path in theirs:
        path.unlink()


def test_all_that_a_step_writes_is_on_its_list(finished):
    for folder in ("000", "200", "200/fold0", "200/fold1", "300", "900"):
        owned = OwnedFiles(finished.folder / "output" / folder)
        nested = ("fold0/", "fold1/")
        assert [name for name in owned.others() if not name.startswith(nested)] == [], folder
        # And what is on it is there.
        assert [name for name in owned.steps if not (owned.folder / name).exists()] == [], folder


OUTPUTS = {
    "input/photos": "is inside the data folder",
    "input": "is, or contains, the data folder",
    ".": "is, or contains, the project folder",
    "..": "is, or contains, the project folder",
    "output/../.": "is, or contains, the project folder",
    "exp_config": "is, or contains, exp_config",
    "exp_config/100": "is inside exp_config",
    ".foldsmith/images": "is inside .foldsmith",
    "mine": r"holds files that are not foldsmith's \(notes.txt\)",
    "linked": "is inside the data folder",
    "notes.md": "is no folder",
}


@pytest.mark.parametrize("place", OUTPUTS)
def test_a_folder_that_is_not_foldsmiths_is_refused_before_anything_happens(project, place):
    root = project.folder
    (root / "mine").mkdir()
    (root / "mine/notes.txt").write_text("mine")
    (root / "notes.md").write_text("mine")
    (root / "linked").symlink_to("input/photos")
    preprocess(project)
    for name, key in (("000", "output_path"), ("200", "output_root"), ("900", "output_path")):
        content = EXPERIMENTS_HERE[name] | {f"globals/{key}": place}
        write_experiment(root, name, content)
        before = content_of(root)
        file = f"exp_config/{name}.yml"
        doing = {"000": pretrain, "200": train, "900": ensemble}[name]
        for call in (dry_run, run, status, check, doing):
            more = {"force": True} if call is doing else {}
            with pytest.raises((ConfigError, OutputError), match=OUTPUTS[place]) as caught:
                call(project, file, **more)
            lines = [line for line in str(caught.value).splitlines() if f"{name}.yml" in line]
            assert any(f"globals/{key}: " in x and "name a folder of its own" in x for x in lines)
        assert content_of(root) == before
        write_experiment(root, name, EXPERIMENTS_HERE[name])


def test_an_empty_folder_and_a_linked_one_are_fine(project, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (project.folder / "output").symlink_to(tmp_path / "elsewhere")
    (project.folder / "output/000").mkdir()
    (project.folder / "output/000/.gitkeep").touch()
    preprocess(project)
    pretrain(project, "exp_config/000.yml")
    assert (tmp_path / "elsewhere/000/manifest.json").is_file()
    with pytest.raises(OutputError, match="add -f"):
        pretrain(project, "exp_config/000.yml")


def test_preprocess_replaces_no_table_of_the_users(project):
    table = project.data_dir / "img_info.csv"
    table.write_text("mine")
    before = content_of(project.folder)
    with pytest.raises(OutputError, match=r"img_info.csv: is there already, and foldsmith did not"):
        preprocess(project)
    assert content_of(project.folder) == before
    table.unlink()
    (project.data_dir / "near_duplicates.csv").write_text("mine")
    preprocess(project)
    preprocess(project)
    assert (project.data_dir / "near_duplicates.csv").read_text() == "mine"


names = st.lists(st.sampled_from(["a.txt", "b/c.txt", "b/d.txt", "e.txt"]), unique=True)


@settings(max_examples=40)
@given(ours=names, theirs=names, removed=names)
def test_only_what_is_on_the_list_is_removed(tmp_path_factory, ours, theirs, removed):
    folder = tmp_path_factory.mktemp("folder")
    owned = OwnedFiles(folder)
    for name in theirs:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("theirs")
    taken = sorted(set(ours) & set(theirs))
    if taken:
        with pytest.raises(OutputError, match="foldsmith did not write it"):
            owned.record(ours, "step")
    for name in set(ours) - set(theirs):
        path = owned.path(name, "step")
        path.parent.mkdir(exist_ok=True)
        path.write_text("ours")
    owned.remove(removed)
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*.txt")}
    assert left == set(theirs) | (set(ours) - set(removed))
    assert all((folder / name).read_text() == "theirs" for name in theirs)


def test_a_list_from_elsewhere_names_no_file_outside_of_its_folder(tmp_path):
    folder = tmp_path / "output"
    owned = OwnedFiles(folder)
    owned.path("a.txt", "step").write_text("ours")
    (tmp_path / "b.txt").write_text("theirs")
    manifest = {"step": "train x", "inputs": {}, "facts": {}}
    outputs = {"../b.txt": "", str(tmp_path / "b.txt"): ""}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"outputs": outputs}))
    (folder / "foldsmith.json").unlink()
    assert owned.remove(["../b.txt", str(tmp_path / "b.txt")]) == []
    assert (tmp_path / "b.txt").exists()


def test_a_damaged_list_is_read_from_the_manifests(finished):
    owned = OwnedFiles(finished.folder / "output/000")
    path = owned.folder / "foldsmith.json"
    kept = path.read_bytes()
    known = set(owned.steps)
    for damaged in (b"", kept[: len(kept) // 2], kept.replace(b"loss.png", b"lose.png")):
        path.write_bytes(damaged)
        assert known <= set(owned.steps)
    path.write_bytes(kept)
