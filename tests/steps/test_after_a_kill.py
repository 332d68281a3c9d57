"""What a killed command leaves behind at single moments; tests/survival kills it at any."""

from pathlib import Path

import pytest
from small_project import EXPERIMENTS, make_project

from foldsmith.config import Experiment
from foldsmith.config.output_path import check_output, claimant
from foldsmith.errors import OutputError
from foldsmith.new.files import write_all
from foldsmith.project import ProjectFolder
from foldsmith.steps.output_folder import RESUME_FILE, tidy
from foldsmith.training.extensions.snapshots import WeightsSnapshot
from foldsmith.utils.owned_files import OwnedFiles

CONTENTS = {Path("project.yml"): "name: mine\n", Path("exp_config/100.yml"): "a: 1\n"}


def test_a_new_project_that_was_half_written_is_completed(tmp_path):
    write_all(tmp_path / "whole", CONTENTS)
    half = tmp_path / "half/exp_config/100.yml"
    half.parent.mkdir(parents=True)
    half.write_text("a: 1\n")
    write_all(tmp_path / "half", CONTENTS)
    for name in CONTENTS:
        assert (tmp_path / "half" / name).read_text() == (tmp_path / "whole" / name).read_text()
    with pytest.raises(OutputError, match=r"project\.yml: exists already"):
        write_all(tmp_path / "half", CONTENTS)


def test_a_file_with_other_content_is_not_taken_over(tmp_path):
    mine = tmp_path / "exp_config/100.yml"
    mine.parent.mkdir()
    mine.write_text("a: 2\n")
    with pytest.raises(OutputError, match=r"100\.yml: exists already"):
        write_all(tmp_path, CONTENTS)
    assert mine.read_text() == "a: 2\n" and not (tmp_path / "project.yml").exists()


def test_a_removed_snapshot_is_taken_off_the_list(tmp_path):
    owned = OwnedFiles(tmp_path)
    owned.record(["epoch_1.pth", "epoch_2.pth"], "training")
    (tmp_path / "epoch_2.pth").touch()  # the kill came after the first was removed
    snapshot = WeightsSnapshot(None, "epoch_{.epoch}.pth", keep=1)
    snapshot.remove_superseded(tmp_path)
    assert owned.of() == ["epoch_2.pth"] and (tmp_path / "epoch_2.pth").exists()


@pytest.mark.parametrize("there", [True, False])
def test_a_finished_training_is_tidied(tmp_path, there):
    folder = tmp_path / "fold0"
    owned = OwnedFiles(folder)
    folder.mkdir()
    owned.record(["log.json", RESUME_FILE], "training")
    (folder / "log.json").touch()
    if there:
        (folder / RESUME_FILE).touch()
    tidy(folder, keep_resume=False)
    assert owned.of() == ["log.json"] and not (folder / RESUME_FILE).exists()


def test_a_root_with_nothing_but_a_begun_fold_is_the_experiments(tmp_path, small_images):
    project = ProjectFolder.open(make_project(tmp_path / "project", small_images))
    experiment = Experiment.load(project, Path("exp_config/200.yml"))
    root = project.path(EXPERIMENTS["200"]["globals/output_root"])
    (root / "fold0").mkdir(parents=True)
    with pytest.raises(OutputError, match="holds files that are not foldsmith's"):
        check_output(experiment)
    OwnedFiles(root).claim(claimant(experiment))
    check_output(experiment)
