"""The commands of the single steps."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from foldsmith.cli.command import command, open_project
from foldsmith.cli.completion import OTHERS, output_folders
from foldsmith.cli.options import (
    ConfigOption,
    Force,
    KeepSnapshots,
    Overrides,
    ProjectOption,
    Resume,
    SkipBad,
    TrustPython,
)

group = typer.Typer()


@command(group)
def preprocess(
    project: ProjectOption = Path("."),
    trust_python: TrustPython = False,
    skip_bad: SkipBad = False,
) -> None:
    """Stage 1: measure the images, split the labelled ones.

    foldsmith preprocess
    foldsmith preprocess --skip-bad    # skip unreadable images

    Writes, into the project's data_dir, img_info.csv and stats_by_data.csv (size and colours of the
    images), the fold table (train_sgkf-5fold.csv, say), near_duplicates.csv and, with --skip-bad,
    bad_images.csv where there are such images.
    """
    from foldsmith.steps.preprocess import preprocess

    preprocess(open_project(project, trust_python), skip_bad)


@command(group)
def pretrain(
    config: ConfigOption,
    overrides: Overrides = None,
    project: ProjectOption = Path("."),
    trust_python: TrustPython = False,
    force: Force = False,
    resume: Resume = False,
) -> None:
    """Stage 2: self-supervised pretraining on all images.

    foldsmith pretrain -cfg exp_config/000.yml
    foldsmith pretrain -cfg exp_config/000.yml --resume
    foldsmith pretrain -cfg exp_config/000.yml globals/max_epoch=200 loader/train/batch_size=128

    Writes, into globals/output_path, backbone_epoch_*.pth, log.json, curves, resume.pth and the
    configuration as it was run. Needs "foldsmith preprocess".
    """
    from foldsmith.steps.pretrain import pretrain

    pretrain(open_project(project, trust_python), config, overrides or (), force, resume)


@command(group)
def train(
    config: ConfigOption,
    overrides: Overrides = None,
    folds: Annotated[
        str | None,
        typer.Option("-v", "--val-fold", help="Folds to train, as in 0,1,4.", show_default="all"),
    ] = None,
    project: ProjectOption = Path("."),
    trust_python: TrustPython = False,
    force: Force = False,
    resume: Resume = False,
) -> None:
    """Stage 3: fine-tune one model per fold.

    foldsmith train -cfg exp_config/100.yml
    foldsmith train -cfg exp_config/100.yml -v 0,1 --resume
    foldsmith train -cfg exp_config/100.yml -f globals/max_epoch=50

    Writes, into globals/output_root, a folder fold0, fold1, ... each with snapshots (best metric,
    lowest loss, last), log.json and curves. A member on fixed features is fitted in all folds at
    once, and has predicted when this ends. Needs "foldsmith preprocess", and the backbone if the
    experiment names one.
    """
    from foldsmith.steps.train_command import train

    train(
        open_project(project, trust_python),
        config,
        overrides or (),
        _fold_list(folds),
        force,
        resume,
    )


def _fold_list(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of folds such as 0,1,4") from None


@command(group)
def infer(
    experiment: Annotated[
        Path,
        typer.Option(
            "-e",
            "--experiment",
            metavar="DIR",
            help="Output folder of a training.",
            autocompletion=output_folders(OTHERS),
        ),
    ],
    overrides: Overrides = None,
    checkpoint: Annotated[
        Literal["metric", "loss", "last", "common"],
        typer.Option(
            "-cri",
            "--checkpoint",
            help="Epoch of each fold: its best, the last, or one that is best for all.",
        ),
    ] = "metric",
    keep_snapshots: KeepSnapshots = False,
    project: ProjectOption = Path("."),
    trust_python: TrustPython = False,
) -> None:
    """Stage 4: predict labelled images out of fold, and the others.

    foldsmith infer -e output/100_resnet18d_cls
    foldsmith infer -e output/100_resnet18d_cls -cri last --keep-snapshots

    Writes, into the same folder, score_by_*.csv, oof_prediction_by_*.npy and .csv,
    submission_by_*.csv and the chosen models (* is best_metric, say). When all of it is there, the
    other snapshots of the training are deleted, unless --keep-snapshots is given. Needs all folds.
    """
    from foldsmith.steps.infer import infer

    infer(
        open_project(project, trust_python), experiment, checkpoint, keep_snapshots, overrides or ()
    )


@command(group)
def ensemble(
    config: ConfigOption,
    overrides: Overrides = None,
    project: ProjectOption = Path("."),
    trust_python: TrustPython = False,
    force: Force = False,
) -> None:
    """Stage 5: blend experiments, and say which blend to submit.

    foldsmith ensemble -cfg exp_config/900.yml
    foldsmith ensemble -cfg exp_config/900.yml -f ensemble/method=simplex

    Writes, into globals/output_path, submission.csv (the recommended blend), submission_*.csv,
    weights.csv and ensemble_scores.csv. Needs the inference of its members.
    """
    from foldsmith.steps.ensemble import ensemble

    ensemble(open_project(project, trust_python), config, overrides or (), force)
