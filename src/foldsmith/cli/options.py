"""The options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from foldsmith.cli.completion import PRETRAININGS, experiment_files, output_folders

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
    Path | None,
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
    list[str] | None,
    typer.Argument(
        metavar="[PATH=VALUE]...",
        help="Overrides, as in globals/max_epoch=2 model/base_name=resnet18d.",
    ),
]
RunOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PATH=VALUE]...",
        help="Overrides; for other experiments than the file's as in 1*:globals/max_epoch=2.",
    ),
]
KeepSnapshots = Annotated[
    bool, typer.Option("--keep-snapshots", help="Keep the snapshots of the trainings.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue after the last finished epoch.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out images that cannot be read.")]
RunProject = Annotated[
    Path | None,
    typer.Option(
        "--project",
        metavar="DIR",
        help="Project folder; --run is relative to it.",
        show_default="the project of the run",
    ),
]
PredictingRun = Annotated[
    Path,
    typer.Option(
        "--run",
        metavar="DIR",
        help="Output folder of an ensemble, or of one experiment; or an export.",
        autocompletion=output_folders(PRETRAININGS),
    ),
]
BlendOption = Annotated[
    str | None,
    typer.Option("--blend", help="Blend of the ensemble.", show_default="the recommended one"),
]
CheckpointOption = Annotated[
    Literal["metric", "loss", "last", "common"] | None,
    typer.Option("-cri", "--checkpoint", help="Which epochs of a single experiment."),
]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", help="As globals/device.", show_default="as when inferred"),
]
TrustPython = Annotated[
    bool,
    typer.Option(
        "--trust-python", help="Run the Python that the project or export brings; read it first."
    ),
]
Force = Annotated[bool, typer.Option("-f", "--force", help="Allow an existing output folder.")]
