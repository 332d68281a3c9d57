"""Bad input at the real command line: one clear line, exit code 2, no traceback."""

import resource

import pandas as pd
import pytest
from bundled import ONE_CURVE, SMALL_TRAIN
from warm import Command

from foldsmith.errors import ConfigError, OutputError
from foldsmith.steps.infer import infer
from foldsmith.steps.train_command import train
from foldsmith.utils.owned_files import OwnedFiles

MODEL = "model/base_name=test_resnet"
AN_EPOCH = [*SMALL_TRAIN, *ONE_CURVE, MODEL, "globals/max_epoch=1"]


def error_of(result):
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("foldsmith: error:")]
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train", "-cfg", "exp_config/100.yml"], "run the stage that makes it first"),
        (["train", "-cfg", "exp_config/000.yml"], "run it with 'foldsmith pretrain'"),
        (["pretrain", "-cfg", "exp_config/100.yml"], "run it with 'foldsmith train'"),
        (["train", "-cfg", "exp_config/none.yml"], "no such experiment file"),
        (["check", "-cfg", "exp_config/000.yml", "optimizer/lrr=1"], "SGD has no argument lrr"),
        (["infer", "-e", "output/none"], "is it the output folder of a training?"),
        (["ensemble", "-cfg", "exp_config/900.yml"], "run 'foldsmith preprocess' first"),
        (["pretrain", "-cfg", "exp_config/000.yml", "globals/device=cuda:9"], "globals/device"),
        (
            ["pretrain", "-cfg", "exp_config/000.yml", "loader/train/num_workers=0"],
            "80 images do not fill one batch of 512",
        ),
        (
            ["train", "-cfg", "exp_config/100.yml", "model/pretrained=null", "-v", "5"],
            "the folds are 0 to 4",
        ),
    ],
)
def test_one_line_and_code_2(cli, project_dir, command, message):
    assert message in error_of(cli(project_dir, *command, code=2))
    assert not (project_dir / "output").exists()


def test_debug_shows_the_traceback(cli, project_dir):
    result = cli(project_dir, "infer", "-e", "output/none", "--debug", code=2)
    assert "Traceback" in result.stderr
    assert "is it the output folder of a training?" in result.stderr.splitlines()[-1]


def test_bad_images_are_listed_before_anything_is_written(cli, project_dir):
    data = project_dir / "input/atmaCup-11"
    ids = pd.read_csv(data / "train.csv")["object_id"]
    (data / "photos" / f"{ids[0]}.jpg").write_bytes(b"")
    (data / "photos" / f"{ids[1]}.jpg").unlink()
    stderr = cli(project_dir, "preprocess", code=2).stderr
    assert f"{ids[0]}.jpg: not a readable image" in stderr
    assert f"{ids[1]}.jpg: no such image" in stderr
    assert not (data / "img_info.csv").exists()


def test_an_existing_output_folder_needs_force(project):
    root = train(project, "exp_config/200.yml", AN_EPOCH, folds=[0])
    # Of an earlier training, and of somebody else.
    marker = OwnedFiles(root / "fold0").path("snapshot_by_metric_epoch_9.pth", "training")
    other = root / "fold0" / "snapshot_by_metric_epoch_8.pth"
    marker.touch()
    other.touch()
    with pytest.raises(OutputError, match="exists already; add -f"):
        train(project, "exp_config/200.yml", AN_EPOCH, folds=[0])
    assert marker.exists()
    train(project, "exp_config/200.yml", AN_EPOCH, folds=[1])
    assert marker.exists()
    with pytest.raises(OutputError, match="fold 2,3,4 not trained or not finished"):
        infer(project, root)
    train(project, "exp_config/200.yml", AN_EPOCH, folds=[0], force=True)
    assert not marker.exists() and other.exists()


def test_folds_trained_differently_are_refused(project):
    root = train(project, "exp_config/200.yml", AN_EPOCH, folds=[0, 1, 2, 3])
    train(project, "exp_config/200.yml", [*AN_EPOCH, "optimizer/lr=0.5"], folds=[4], force=True)
    with pytest.raises(OutputError, match=r"is not what fold0 was trained with .*optimizer/lr"):
        infer(project, root)


def test_a_path_that_cannot_be_written_is_one_line(cli, project_dir):
    blocked = project_dir / "blocked"
    blocked.write_text("a file where a folder should be")
    sheet = ["--show-augmentations", blocked / "sheet.png"]
    result = cli(project_dir, "check", "-cfg", "exp_config/000.yml", *sheet, code=2)
    assert "blocked" in error_of(result)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model/dims_head=[null, 1]"], "set model/dims_head=[null, 4]"),
        (["model/base_name=vit_tiny_patch16_224"], "cannot take images of 32 x 32 px"),
    ],
)
def test_a_model_that_does_not_fit_is_said_before_anything_is_created(project, options, message):
    with pytest.raises(ConfigError) as error:
        train(project, "exp_config/100.yml", [*SMALL_TRAIN, *options])
    assert message in str(error.value)
    assert not project.path("output").exists()


def test_no_room_on_the_disk_is_one_line_and_loses_nothing(project_dir, cli):
    cli(project_dir, "preprocess")
    done = project_dir / "input/atmaCup-11/img_info.csv"
    before = done.read_bytes()
    # A limit on the size of files stands in for a full disk: the snapshot does not fit.
    limit = (resource.setrlimit, resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    command = ["train", "-cfg", "exp_config/200.yml", *AN_EPOCH]
    result = Command(project_dir, *command, before=limit).finish()
    assert result.returncode == 2, result.stderr
    assert "File too large" in error_of(result)
    assert done.read_bytes() == before
    assert not list(project_dir.glob("output/**/*.pth"))


def test_resume_finishes_what_is_not_finished(project, capsys):
    with pytest.raises(OutputError, match="no such folder to resume in"):
        train(project, "exp_config/200.yml", AN_EPOCH, resume=True)
    root = train(project, "exp_config/200.yml", AN_EPOCH, folds=[1])
    before = (root / "fold1/manifest.json").read_bytes()
    capsys.readouterr()
    train(project, "exp_config/200.yml", AN_EPOCH, folds=[0, 1], resume=True)
    assert "fold 1: finished already" in capsys.readouterr().out
    assert (root / "fold1/manifest.json").read_bytes() == before
    assert (root / "fold0/manifest.json").is_file()
    with pytest.raises(OutputError, match=r"run with other inputs: optimizer/lr 2e-05 -> 0.5"):
        train(project, "exp_config/200.yml", [*AN_EPOCH, "optimizer/lr=0.5"], [0], resume=True)
    # Nothing that a training needs only until it ends is left.
    for name in ("resume.pth", "unfinished.json", "progress.json"):
        assert not list(root.rglob(name))
