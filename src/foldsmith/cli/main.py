"""The ``foldsmith`` command: one sub-command per stage, each a thin call of its function."""

import errno
import importlib.util
import inspect
import io
import json
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer

from foldsmith import __version__
from foldsmith.cli.command_class import Command
from foldsmith.cli.completion import (
    FINE_TUNINGS,
    PREDICTING,
    PRETRAININGS,
    experiment_files,
    output_folders,
)
from foldsmith.distributed import process_group
from foldsmith.errors import ConfigError, Detached, FoldsmithError, Stopped, one_line
from foldsmith.utils.optional_packages import install_command

# The stages import torch and timm, which takes seconds: each command imports its own when it
# runs, so that --help and a mistyped option answer at once.

EPILOG = """Overrides, PATH=VALUE, set any value of an experiment, as in globals/max_epoch=2.

Exit codes: 0, done; 2, something to mend (an option, a file, a value, the data, disk or memory),
one line each on stderr; 1, unexpected (--debug shows where); 130 and 143, stopped by Ctrl-C and by
SIGTERM, with the command that goes on.
"""

app = typer.Typer(
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

command = partial(app.command, cls=Command)

ProjectOption = Annotated[
    Path, typer.Option("--project", help="Project folder.", metavar="DIR", show_default="here")
]
ConfigOption = Annotated[
    Path,
    typer.Option(
        "-cfg",
        "--config",
        metavar="FILE",
        help="Experiment file, as in exp_config/100.yml.",
        autocompletion=experiment_files,
    ),
]
AnyConfig = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads the annotation at run time
    typer.Option(
        "-cfg",
        "--config",
        metavar="FILE",
        help="Experiment file.",
        show_default="all in exp_config",
        autocompletion=experiment_files,
    ),
]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads the annotation at run time
    typer.Argument(
        metavar="[PATH=VALUE]...",
        help="Overrides, as in globals/max_epoch=2 model/base_name=resnet18d.",
    ),
]
RunOverrides = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Argument(
        metavar="[PATH=VALUE]...",
        help="Overrides; for other experiments than the file's as in 1*:globals/max_epoch=2.",
    ),
]
KeepSnapshots = Annotated[
    bool, typer.Option("--keep-snapshots", help="Keep the snapshots of the trainings.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue after the last finished epoch.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out photos that cannot be read.")]
RunProject = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads the annotation at run time
    typer.Option(
        "--project",
        metavar="DIR",
        help="Project folder, which --run is relative to then.",
        show_default="that of the run",
    ),
]
PredictingRun = Annotated[
    Path,
    typer.Option(
        "--run",
        metavar="DIR",
        help="Output folder of an ensemble, or of one experiment; or an export.",
        autocompletion=output_folders(PREDICTING),
    ),
]
BlendOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--blend", help="Blend of the ensemble.", show_default="the recommended one"),
]
CriterionOption = Annotated[
    Optional[Literal["metric", "loss", "last", "common"]],  # noqa: UP045
    typer.Option("-cri", "--criterion", help="Which epochs of a single experiment."),
]
DeviceOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--device", help="As globals/device.", show_default="as when inferred"),
]
TrustPython = Annotated[
    bool,
    typer.Option(
        "--trust-python", help="Run the Python that the project or export brings; read it first."
    ),
]
# Modules of the optional packages, those of the extra serve.
_FOR_SERVE = ("fastapi", "uvicorn", "python_multipart")
Force = Annotated[bool, typer.Option("-f", "--force", help="Allow an existing output folder.")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"foldsmith {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """From a folder of photos and a CSV to a prediction, without pretrained weights.

    foldsmith new my-project --images photos --train train.csv --test test.csv
    foldsmith run --project my-project -cfg exp_config/901.yml
    foldsmith predict --run my-project/output/901_ensemble new_photos -o predictions.csv

    The commands run inside a project folder, or take --project. "run" does the five stages as
    needed; each stage is a command too. Every command has examples: foldsmith COMMAND --help.
    """


def _open(folder: Path, trust: bool) -> Any:
    from foldsmith.project import ProjectFolder

    return ProjectFolder.open(folder, trust=trust)


@command()
def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The project's folder.")],
    images: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads the annotation at run time
        typer.Option(
            "--images",
            metavar="DIR",
            help="Folder of the photos; without --train, one folder in it per class.",
            show_default="a project.yml to fill in",
        ),
    ] = None,
    train: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--train", metavar="CSV", help="Table of the labelled photos."),
    ] = None,
    test: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--test", metavar="CSV", help="Table of the photos to predict, if any."),
    ] = None,
    test_images: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--test-images",
            metavar="DIR",
            help="Folder of the photos to predict, if it is another one.",
        ),
    ] = None,
    id_column: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--id",
            metavar="COLUMN",
            help="Column that names the photos.",
            show_default="found in the data",
        ),
    ] = None,
    target: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--target",
            metavar="COLUMN",
            help="Column to predict.",
            show_default="found in the data",
        ),
    ] = None,
    group: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--group",
            metavar="COLUMN",
            help="Column whose equal values must stay in one fold, as of one patient; or none.",
            show_default="found in the data",
        ),
    ] = None,
    metric: Annotated[
        Optional[Literal["RMSE", "MAE", "QWK", "Accuracy", "LogLoss", "AUC"]],  # noqa: UP045
        typer.Option(
            "--metric",
            help="What predictions are judged by; RMSE, MAE and QWK are of a scale.",
            show_default="RMSE for a scale, Accuracy for classes",
        ),
    ] = None,
    budget: Annotated[
        Optional[Literal["small", "medium", "large"]],  # noqa: UP045
        typer.Option(
            "--budget",
            help="small: a laptop's CPU, minutes; medium: a GPU, an hour; large: a GPU over night.",
            show_default="by the device",
        ),
    ] = None,
    classes: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option(
            "--classes/--scale",
            help="Targets are classes without an order, numbers too; or steps of a scale.",
            show_default="found in the data",
        ),
    ] = None,
    skip_missing: Annotated[
        bool,
        typer.Option(
            "--skip-missing", help="Leave out rows without a photo or target, and list them."
        ),
    ] = False,
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="Ask nothing: take columns by the names that people use."),
    ] = False,
) -> None:
    """Begin a project: experiments and a project.yml.

    foldsmith new my-project --images photos --train train.csv --test test.csv
    foldsmith new my-project --images photos --train train.csv --group patient --metric MAE --yes
    foldsmith new my-project --images classes    # one folder per class, no table
    foldsmith new my-project                     # a project.yml to fill in

    What is not named is found in the data, and printed; where several columns are possible,
    you are asked.

    Writes DIR/project.yml, the recommended experiments DIR/exp_config/*.yml, the tables with the
    photos' paths in DIR/input, a link to the photos, and a README; with --skip-missing, also
    the rows that were left out, in DIR/input/skipped.csv. Nothing that exists is replaced.
    """
    from foldsmith.new.new import Data, new_project, new_project_of

    if images is None:
        flags = {
            "--train": train,
            "--test": test,
            "--test-images": test_images,
            "--id": id_column,
            "--target": target,
            "--group": group,
            "--metric": metric,
            "--classes": classes,
        }
        named = [flag for flag, value in flags.items() if value is not None]
        if named:
            raise typer.BadParameter(f"{named[0]} needs --images, the folder of the photos")
        new_project(folder, budget or "small")
        return
    data = Data(
        images=images,
        train=train,
        test=test,
        test_images=test_images,
        id_column=_one_column("--id", id_column),
        target_column=_one_column("--target", target),
        group_column=_one_column("--group", group),
        metric=metric,
        budget=budget,
        classes=classes,
        skip_missing=skip_missing,
    )
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    new_project_of(folder, data, _ask if on_terminal else None, yes)


def _one_column(flag: str, names: list[str] | None) -> str | None:
    """Return the column that a flag names; it may be given once."""
    if not names:
        return None
    if len(names) > 1:
        raise typer.BadParameter(
            f"{flag} is given {len(names)} times ({', '.join(names)}); a project has one"
        )
    return names[0]


def _ask(question: str, answers: Sequence[str], best: str) -> str:
    """Ask a person until the answer is one of those that are possible."""

    def known(text: str) -> str:
        if text not in answers:
            raise typer.BadParameter(f"{text!r} is none of these: {', '.join(answers)}")
        return text

    listed = ", ".join(answers[:12]) + (", ..." if len(answers) > 12 else "")
    try:
        answer: str = typer.prompt(f"{question} ({listed})", default=best, value_proc=known)
    except typer.Abort:
        raise FoldsmithError("no answer; name the column with its flag, or use --yes") from None
    return answer


@command()
def preprocess(
    project: ProjectOption = Path("."),
    trust_python: TrustPython = False,
    skip_bad: SkipBad = False,
) -> None:
    """Stage 1: measure the photos, split the labelled ones.

    foldsmith preprocess
    foldsmith preprocess --skip-bad    # leave out what cannot be read

    Writes, into the project's data_dir, img_info.csv and stats_by_data.csv (size and colours of the
    photos), the fold table (train_sgkf-5fold.csv, say), near_duplicates.csv and, with --skip-bad,
    bad_photos.csv where there are such photos.
    """
    from foldsmith.steps.preprocess import preprocess

    preprocess(_open(project, trust_python), skip_bad)


@command()
def run(
    config: ConfigOption,
    overrides: RunOverrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be run, and run nothing.")
    ] = False,
    only: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--only", help="Experiments to run, as in 100,200.", show_default="all"),
    ] = None,
    until: Annotated[
        Optional[Literal["preprocess", "pretrain", "train", "infer"]],  # noqa: UP045
        typer.Option("--until", help="Last kind of step to run.", show_default="all"),
    ] = None,
    skip_bad: SkipBad = False,
    keep_snapshots: KeepSnapshots = False,
    no_report: Annotated[
        bool, typer.Option("--no-report", help="Write no report at the end.")
    ] = False,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option("--engine", help="Steps here, as many at once as there are GPUs; or by Ray."),
    ] = "local",
    address: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--address",
            metavar="ADDR",
            help="A Ray cluster, HOST:PORT, or auto for the one that this machine is part of.",
            show_default="Ray is started here, and stopped at the end",
        ),
    ] = None,
    stop: Annotated[
        bool, typer.Option("--stop", help="Stop this run, which goes on at --address.")
    ] = False,
    project: ProjectOption = Path("."),
    trust_python: TrustPython = False,
) -> None:
    """Do all that an experiment needs and that is not done.

    foldsmith run -cfg exp_config/900.yml --dry-run    # what, and why
    foldsmith run -cfg exp_config/900.yml
    foldsmith run -cfg exp_config/900.yml --only 100,200 --until train
    foldsmith run -cfg exp_config/900.yml '1*:globals/max_epoch=2'
    foldsmith run -cfg exp_config/900.yml --engine ray                   # many at once, here
    foldsmith run -cfg exp_config/900.yml --engine ray --address auto    # on a cluster

    Goes on where it was stopped: what is done and up to date stays, a training continues after its
    last finished epoch, what was made from other values, files or photos is made anew. On a cluster
    Ctrl-C leaves the run going; the same command attaches to it again, with --stop it ends it.

    Writes into the output folders that the experiments name, and reports/NAME.html at the end.
    """
    from foldsmith.run import engine as run_engine

    names = [name for name in (only or "").split(",") if name]
    if stop and address is None:
        raise typer.BadParameter("--stop needs --address: a run without it ends with its command")
    if address is not None and engine != "ray":
        raise typer.BadParameter("--address needs --engine ray")
    opened = _open(project, trust_python)
    if stop and address is not None:
        run_engine.stop(opened, config, address)
    elif dry_run:
        typer.echo(run_engine.dry_run(opened, config, overrides or (), names, until))
    else:
        values = overrides or ()
        how = (skip_bad, keep_snapshots, engine, address)
        run_engine.run(opened, config, values, names, until, *how)
        if not no_report and until is None:
            _report_of_run(opened, config, overrides or ())


def _report_of_run(project: Any, config: Path, overrides: Sequence[str]) -> None:
    """Write the report; the run has done its work, whatever happens here."""
    from foldsmith.report import write_report

    try:
        typer.echo(f"wrote {write_report(project, config, overrides)}")
    except Exception as error:  # a run of hours must not end as failed for want of a picture
        if _asked_to_stop is not None:
            raise
        typer.echo(
            f"warning: the report could not be written: {one_line(error)} "
            f"(foldsmith report -cfg {config} --debug shows where)",
            err=True,
        )


@command()
def report(
    config: ConfigOption,
    overrides: RunOverrides = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            *("-o", "--output"),
            metavar="HTML",
            help="The file to write.",
            show_default="reports/NAME.html",
        ),
    ] = None,
    look_at: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--look-at",
            metavar="ID,ID",
            help="Labelled photos of which to show what each model looked at.",
            show_default="the worst and the best",
        ),
    ] = None,
    project: ProjectOption = Path("."),
    trust_python: TrustPython = False,
) -> None:
    """Write what a run has found as one HTML file.

    foldsmith report -cfg exp_config/900.yml
    foldsmith report -cfg exp_config/900.yml -o findings.html

    Data, curves, predictions with the worst and best photos, blends, costs and configuration of the
    steps that are done. The file opens without a network.
    """
    from foldsmith.report import write_report

    ids = [name for name in (look_at or "").split(",") if name]
    typer.echo(
        f"wrote {write_report(_open(project, trust_python), config, overrides or (), output, ids)}"
    )


@command()
def compare(
    a: Annotated[
        Path,
        typer.Argument(
            metavar="A",
            help="Output folder of a finished run.",
            autocompletion=output_folders(PREDICTING),
        ),
    ],
    b: Annotated[
        Path,
        typer.Argument(
            metavar="B",
            help="Output folder of another one.",
            autocompletion=output_folders(PREDICTING),
        ),
    ],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            *("-o", "--output"),
            metavar="HTML",
            help="The file to write.",
            show_default="reports/compare_A_B.html",
        ),
    ] = None,
    criterion: CriterionOption = None,
    project: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--project",
            metavar="DIR",
            help="Project folder, which A and B are relative to then.",
            show_default="those that they lie in",
        ),
    ] = None,
    trust_python: TrustPython = False,
) -> None:
    """Say which of two runs is better, and show where.

    foldsmith compare output/900_ensemble output/901_ensemble
    foldsmith compare output/100_resnet18d_cls output/200_resnet18d_reg -cri last

    Ensembles by the cross-fitted predictions of the blend that they recommend, experiments by
    their out-of-fold ones. Writes one HTML file beside the reports of A's project.
    """
    from foldsmith import report
    from foldsmith.steps.output_folder import shown

    path = report.compare(a, b, output, criterion=criterion, project=project, trust=trust_python)
    typer.echo(f"wrote {shown(path)}")


@command()
def status(
    config: AnyConfig = None,
    overrides: RunOverrides = None,
    project: ProjectOption = Path("."),
    trust_python: TrustPython = False,
) -> None:
    """Show what is done, to do, out of date or running.

    foldsmith status
    foldsmith status -cfg exp_config/900.yml

    May be asked at any time, also while it runs. Beside what is out of date stands what has
    changed. Writes nothing but remembered hashes of files (.foldsmith).
    """
    from foldsmith.run.status import status

    typer.echo(status(_open(project, trust_python), config, overrides or ()))


@command()
def plan(
    config: ConfigOption,
    overrides: RunOverrides = None,
    gpus: Annotated[
        Optional[int],  # noqa: UP045 - typer reads the annotation at run time
        typer.Option("--gpus", min=0, help="GPUs per node.", show_default="those here"),
    ] = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Machines, all alike.")] = 1,
    cpus: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            "--cpus",
            min=1,
            help="CPU cores per node.",
            show_default="those here, or 8 per GPU if there are fewer GPUs here",
        ),
    ] = None,
    memory: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            "--memory",
            metavar="GIB",
            min=0.1,
            help="Memory per node in GiB.",
            show_default="that here, or no limit if there are fewer GPUs here",
        ),
    ] = None,
    speedup: Annotated[
        float,
        typer.Option(
            "--speedup", min=0.001, help="How many times as fast the GPUs are as what was measured."
        ),
    ] = 1.0,
    epoch_s: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--epoch-s",
            metavar="NAME=S",
            help="Seconds of an experiment's epochs there, as in 000=12.5; may be repeated.",
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time models here whose steps were never measured.")
    ] = False,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Plan what is done, too.")
    ] = False,
    save: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--save", metavar="FILE", help="Draw the plan as a .png, .svg or .pdf."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    project: ProjectOption = Path("."),
    trust_python: TrustPython = False,
) -> None:
    """Say what a run will take: time, GPU hours, disk.

    foldsmith plan -cfg exp_config/900.yml
    foldsmith plan -cfg exp_config/900.yml --gpus 8 --nodes 2    # 8 per node, 16 in all
    foldsmith plan -cfg exp_config/900.yml --gpus 4 --cpus 32 --speedup 30 --save plan.svg
    foldsmith plan -cfg exp_config/900.yml --from-scratch --epoch-s 000=12.5 --json

    On paper, from measured epochs: steps side by side as "foldsmith run --engine ray" starts them,
    and one after another. Where nothing was measured, times are estimates, and say so. Runs
    nothing; writes nothing but remembered hashes of files (.foldsmith), and what --save names.
    """
    from foldsmith.extras.estimate.estimate import forecast

    planned = forecast(
        *(_open(project, trust_python), config, overrides or ()),
        nodes=nodes,
        gpus=gpus,
        cpus=cpus,
        memory_gib=memory,
        speedup=speedup,
        epoch_s=_epoch_seconds(epoch_s or ()),
        measure=measure,
        from_scratch=from_scratch,
    )
    if save is not None:
        planned.save(save)
    typer.echo(json.dumps(planned.as_dict(), indent=2) if as_json else str(planned))
    if save is not None and not as_json:
        typer.echo(f"wrote {save}")


@command()
def doctor(
    config: AnyConfig = None,
    project: ProjectOption = Path("."),
    trust_python: TrustPython = False,
) -> None:
    """Check environment, data and experiments.

    foldsmith doctor
    foldsmith doctor -cfg exp_config/100.yml

    One batch goes through every model; where it does not fit into memory, a batch size that does is
    named. Trains nothing. Exit code 2 if something is wrong.
    """
    from foldsmith.run.doctor import doctor

    problems = doctor(_open(project, trust_python), config)
    if problems:
        raise FoldsmithError("\n".join(problems))
    typer.echo("nothing is wrong")


@command()
def pretrain(
    config: ConfigOption,
    overrides: Overrides = None,
    project: ProjectOption = Path("."),
    trust_python: TrustPython = False,
    force: Force = False,
    resume: Resume = False,
) -> None:
    """Stage 2: self-supervised pretraining on all photos.

    foldsmith pretrain -cfg exp_config/000.yml
    foldsmith pretrain -cfg exp_config/000.yml --resume
    foldsmith pretrain -cfg exp_config/000.yml globals/max_epoch=200 loader/train/batch_size=128

    Writes, into globals/output_path, backbone_epoch_*.pth, log.json, curves, resume.pth and the
    configuration as it was run. Needs "foldsmith preprocess".
    """
    from foldsmith.steps.pretrain import pretrain

    pretrain(_open(project, trust_python), config, overrides or (), force, resume)


@command()
def train(
    config: ConfigOption,
    overrides: Overrides = None,
    folds: Annotated[
        Optional[str],  # noqa: UP045
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
    from foldsmith.steps.train import train

    train(_open(project, trust_python), config, overrides or (), _fold_list(folds), force, resume)


@command()
def infer(
    experiment: Annotated[
        Path,
        typer.Option(
            "-e",
            "--experiment",
            metavar="DIR",
            help="Output folder of a training.",
            autocompletion=output_folders(FINE_TUNINGS),
        ),
    ],
    overrides: Overrides = None,
    criterion: Annotated[
        Literal["metric", "loss", "last", "common"],
        typer.Option(
            "-cri",
            "--criterion",
            help="Epoch of each fold: its best, the last, or one that is best for all.",
        ),
    ] = "metric",
    keep_snapshots: KeepSnapshots = False,
    project: ProjectOption = Path("."),
    trust_python: TrustPython = False,
) -> None:
    """Stage 4: predict labelled photos out of fold, and the others.

    foldsmith infer -e output/100_resnet18d_cls
    foldsmith infer -e output/100_resnet18d_cls -cri last --keep-snapshots

    Writes, into the same folder, score_by_*.csv, oof_prediction_by_*.npy and .csv,
    submission_by_*.csv and the chosen models (* is best_metric, say). When all of it is there, the
    other snapshots of the training are deleted, unless --keep-snapshots is given. Needs all folds.
    """
    from foldsmith.steps.infer import infer

    infer(_open(project, trust_python), experiment, criterion, keep_snapshots, overrides or ())


@command()
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

    ensemble(_open(project, trust_python), config, overrides or (), force)


@command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to.")],
    finished: Annotated[
        Path,
        typer.Option(
            "--run",
            metavar="DIR",
            help="Output folder of an ensemble, of one experiment, or of a pretraining.",
            autocompletion=output_folders((*PRETRAININGS, *PREDICTING)),
        ),
    ],
    blend: BlendOption = None,
    criterion: CriterionOption = None,
    pick: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--pick",
            help="Backbone of a pretraining: last, best_probe or an epoch.",
            show_default="last",
        ),
    ] = None,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Networks as ONNX files, for ONNX Runtime on a CPU.")
    ] = False,
    force: Annotated[
        bool, typer.Option("-f", "--force", help="Replace an earlier export.")
    ] = False,
    project: RunProject = None,
    trust_python: TrustPython = False,
) -> None:
    """Write a run for use elsewhere, without its project.

    foldsmith export --run output/900_ensemble predictor
    foldsmith export --run output/900_ensemble predictor --onnx -f
    foldsmith export --run output/000_resnet18d_simsiam backbone --pick best_probe

    An ensemble or experiment becomes a folder that "foldsmith predict --run DIR" takes on any
    machine. A pretraining becomes DIR/model.safetensors and DIR/config.json, which
    timm.create_model("local-dir:backbone", pretrained=True, num_classes=0) loads without foldsmith.
    """
    from foldsmith.predictor.export import export

    export(
        *(finished, folder),
        pick=pick,
        blend=blend,
        criterion=criterion,
        onnx=onnx,
        force=force,
        project=project,
        trust=trust_python,
    )


@command()
def predict(
    photos: Annotated[
        list[str],
        typer.Argument(metavar="PHOTOS...", help="Files, folders and patterns as in 'new/*.jpg'."),
    ],
    finished: PredictingRun,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            *("-o", "--output"),
            metavar="FILE",
            help="A .csv, .json or .parquet file.",
            show_default="print a CSV",
        ),
    ] = None,
    blend: BlendOption = None,
    criterion: CriterionOption = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="No prediction for photos that cannot be read.")
    ] = False,
    device: DeviceOption = None,
    project: RunProject = None,
    trust_python: TrustPython = False,
) -> None:
    """Predict new photos with a finished run.

    foldsmith predict --run output/900_ensemble new_photos -o predictions.csv
    foldsmith predict --run output/900_ensemble 'more/*.jpg' --blend ridge
    foldsmith predict --run output/100_resnet18d_cls 1.jpg 2.jpg -o one.json

    By the same models, preparation of photos and blend as the test photos. Writes or prints a table
    with path, prediction and spread (the standard deviation of the members' predictions). The
    photos that the run was trained on are not needed.
    """
    from foldsmith.predictor.predict import predict

    table = predict(
        *(finished, photos, output),
        blend=blend,
        criterion=criterion,
        skip_bad=skip_bad,
        device=device,
        project=project,
        trust=trust_python,
    )
    if output is None:
        _print_data(table.to_csv(index=False))


@command()
def serve(
    finished: PredictingRun,
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Its port; 0 for any that is free.")
    ] = 8000,
    max_megabytes: Annotated[
        float, typer.Option("--max-megabytes", help="Largest request, in 10^6 bytes.")
    ] = 20.0,
    max_megapixels: Annotated[
        float, typer.Option("--max-megapixels", help="Most pixels of a request, in 10^6.")
    ] = 50.0,
    max_requests: Annotated[
        int, typer.Option("--max-requests", help="Requests that are served at one time.")
    ] = 16,
    timeout: Annotated[
        float, typer.Option("--timeout", help="Seconds that a client has to send a request.")
    ] = 30.0,
    blend: BlendOption = None,
    criterion: CriterionOption = None,
    device: DeviceOption = None,
    project: RunProject = None,
    trust_python: TrustPython = False,
) -> None:
    """Predict new photos over HTTP.

    foldsmith serve --run output/900_ensemble
    foldsmith serve --run predictor --port 8080

    POST photos to /predict; /docs says how, GET /health whether it is up. Whoever reaches the
    address may ask: there are no passwords. Writes nothing; Ctrl-C ends it.
    """
    missing = [name for name in _FOR_SERVE if importlib.util.find_spec(name) is None]
    if missing:
        raise FoldsmithError(f"serve needs {', '.join(missing)}; run: {install_command('serve')}")
    from foldsmith.extras import serve as serving
    from foldsmith.extras.serve_limits import Limits

    serving.serve(
        *(finished, host, port),
        Limits(max_megabytes, max_megapixels, max_requests, timeout),
        blend=blend,
        criterion=criterion,
        device=device,
        project=project,
        trust=trust_python,
    )


@command()
def check(
    config: ConfigOption,
    overrides: Overrides = None,
    sheet: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--show-augmentations",
            metavar="PNG",
            help="Write a contact sheet of the training transforms instead.",
        ),
    ] = None,
    project: ProjectOption = Path("."),
    trust_python: TrustPython = False,
) -> None:
    """Check an experiment file; print it as it would be run.

    foldsmith check -cfg exp_config/100.yml
    foldsmith check -cfg exp_config/100.yml globals/max_epoch=2 dataset/img_size=64
    foldsmith check -cfg exp_config/100.yml --show-augmentations sheet.png

    Prints YAML with every value, imports and overrides applied, or writes the sheet. Names,
    arguments, references and files are checked; nothing is run.
    """
    from foldsmith.steps.check import check, show_augmentations

    if sheet is None:
        typer.echo(check(_open(project, trust_python), config, overrides or ()), nl=False)
    else:
        written = show_augmentations(_open(project, trust_python), config, sheet, overrides or ())
        typer.echo(f"wrote {written}")


def _with_examples(text: str) -> str:
    r"""Mark the examples in a help text, a paragraph of commands, so that they are not wrapped."""
    return re.sub(r"(?m)(?<=\n\n)(?=foldsmith )", "\b\n", text)


for _part in (*app.registered_commands, app.registered_callback):
    assert _part is not None and _part.callback is not None
    _part.help = _with_examples(inspect.getdoc(_part.callback) or "")


def _print_data(text: str) -> None:
    """Print what programs read, to the byte: UTF-8, and paths as they are, whatever the terminal.

    Escapes would be other data.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
        sys.stdout.buffer.flush()
    else:
        sys.stdout.write(text)


def _epoch_seconds(texts: Sequence[str]) -> dict[str, float]:
    """Return name -> seconds of what is written as ``000=12.5``."""
    seconds = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            seconds[name] = float(number)
        except ValueError:
            seconds[name] = 0.0
        if not 0 < seconds[name] < float("inf"):
            raise typer.BadParameter(f"--epoch-s {text}: is not NAME=SECONDS, as in 000=12.5")
    return seconds


def _fold_list(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of folds such as 0,1,4") from None


# The signal that has asked this process to end.
_asked_to_stop: int | None = None


def main() -> None:
    """Run the command; an error that is meant for people is one line and exit code 2.

    The exit codes are those of :data:`EPILOG`; --debug changes none of them.
    """
    for stream in (sys.stdout, sys.stderr):
        # What a terminal or a file's encoding lacks, as Japanese in latin-1, is escaped: nothing
        # that is only printed may end a command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in sys.argv[1:]
    # Wherever it stands, as in "foldsmith train ... --debug".
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    # SIGTERM is what a cluster or a container sends before it kills: ends as cleanly as Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        _refuse_torchrun(arguments)
        code = app(args=arguments, prog_name="foldsmith", standalone_mode=False)
    except Detached as stopped:
        print(f"\nfoldsmith: {_how_to_attach(arguments)}", file=sys.stderr)
        code = 128 + stopped.args[0]
    except Stopped as stopped:
        code = _stopped(stopped.args[0], arguments)
    except Exception as error:
        if _asked_to_stop is not None:
            # A library's way to say that it was interrupted: no error of its own.
            sys.exit(_stopped(_asked_to_stop, arguments))
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()  # a mistyped option: the class depends on typer's version
            sys.exit(error.exit_code)
        if debug:
            traceback.print_exc()
        told = isinstance(error, FoldsmithError) and error.told
        for line in [] if told else _message(error).splitlines():
            print(f"foldsmith: error: {line}", file=sys.stderr)
        code = 2 if isinstance(error, (FoldsmithError, OSError, MemoryError)) else 1
    sys.exit(code)


def _refuse_torchrun(arguments: list[str]) -> None:
    """Make sure that several processes were started for a command that is made for them."""
    if process_group.asked_for() > 1 and arguments[:1] not in (["pretrain"], ["train"]):
        raise ConfigError(
            f"RANK and WORLD_SIZE={process_group.asked_for()} are set, as by torchrun: that is for "
            "'foldsmith pretrain' and 'foldsmith train'; start other commands without it"
        )


def _stop(number: int, _: object) -> None:
    global _asked_to_stop
    _asked_to_stop = number
    raise Stopped(number)


def _stopped(number: int, arguments: list[str]) -> int:
    """Say how to go on after a signal; return the exit code."""
    # Of several processes of a training one says it.
    if process_group.asked_for() == 1 or os.environ.get("RANK") == "0":
        print(f"\nfoldsmith: stopped{_how_to_go_on(arguments)}", file=sys.stderr)
    return 128 + number


def _how_to_go_on(arguments: list[str]) -> str:
    """Return the command that continues what was stopped."""
    kept = list(arguments)
    if process_group.asked_for() > 1:
        return "; every finished epoch is kept. Go on with the same command and --resume"
    if kept[:1] in (["pretrain"], ["train"]):
        kept = [text for text in kept if text not in ("-f", "--force", "--resume")] + ["--resume"]
    elif kept[:1] not in (["run"], ["preprocess"], ["infer"], ["ensemble"]):
        return ""
    return f"; every finished epoch is kept. Go on with: foldsmith {shlex.join(kept)}"


def _how_to_attach(arguments: list[str]) -> str:
    """Return how to come back to a run that goes on without this command, and how to stop it."""
    command = f"foldsmith {shlex.join(arguments)}"
    return f"the run goes on. Attach to it with: {command}; stop it with: {command} --stop"


def _message(error: BaseException) -> str:
    if isinstance(error, FoldsmithError):
        return str(error)
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        remedy = (
            "; free some space and run the command again" if error.errno == errno.ENOSPC else ""
        )
        return f"{name}{error.strerror or one_line(error)}{remedy}"
    if isinstance(error, MemoryError):
        return f"out of memory {one_line(error)}".strip()
    return f"unexpected {type(error).__name__}: {one_line(error)} (--debug shows where)"


if __name__ == "__main__":
    main()
