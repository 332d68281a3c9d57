"""The commands that use a finished run: for new images, and elsewhere."""

import importlib.util
import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from foldsmith.cli.command import command
from foldsmith.cli.completion import output_folders
from foldsmith.cli.options import (
    BlendOption,
    CheckpointOption,
    DeviceOption,
    PredictingRun,
    RunProject,
    TrustPython,
)
from foldsmith.errors import FoldsmithError
from foldsmith.utils.optional_packages import install_command

group = typer.Typer()

# Modules of the optional packages, those of the extra serve.
_FOR_SERVE = ("fastapi", "uvicorn", "python_multipart")


@command(group)
def predict(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES...", help="Files, folders and patterns as in 'new/*.jpg'."),
    ],
    finished: PredictingRun,
    output: Annotated[
        Path | None,
        typer.Option(
            *("-o", "--output"),
            metavar="FILE",
            help="A .csv, .json or .parquet file.",
            show_default="print a CSV",
        ),
    ] = None,
    sample: Annotated[
        Path | None,
        typer.Option(
            "--sample",
            metavar="CSV",
            help="Sample submission, whose form the table gets; its ids are the file names.",
            show_default="path, prediction, spread, probabilities",
        ),
    ] = None,
    blend: BlendOption = None,
    checkpoint: CheckpointOption = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="No prediction for images that cannot be read.")
    ] = False,
    device: DeviceOption = None,
    project: RunProject = None,
    trust_python: TrustPython = False,
) -> None:
    """Predict new images with a finished run.

    foldsmith predict --run output/900_ensemble new_images -o predictions.csv
    foldsmith predict --run output/900_ensemble 'more/*.jpg' --blend ridge
    foldsmith predict --run output/100_resnet18d_cls 1.jpg 2.jpg -o one.json

    By the same models, preparation of images and blend as the test images. Writes or prints a table
    with path, prediction and spread (the standard deviation of the members' predictions). The
    images that the run was trained on are not needed.
    """
    from foldsmith.predictor.predict import predict

    table = predict(
        *(finished, images, output),
        sample=sample,
        blend=blend,
        checkpoint=checkpoint,
        skip_bad=skip_bad,
        device=device,
        project=project,
        trust=trust_python,
    )
    if output is None:
        _print_data(table.to_csv(index=False))


def _print_data(text: str) -> None:
    """Print output for programs byte by byte: UTF-8, with unchanged paths, on any terminal.

    Escapes would be other data.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
        sys.stdout.buffer.flush()
    else:
        sys.stdout.write(text)


@command(group)
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to.")],
    finished: Annotated[
        Path,
        typer.Option(
            "--run",
            metavar="DIR",
            help="Output folder of an ensemble, of one experiment, or of a pretraining.",
            autocompletion=output_folders(),
        ),
    ],
    blend: BlendOption = None,
    checkpoint: CheckpointOption = None,
    pick: Annotated[
        str | None,
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
        checkpoint=checkpoint,
        onnx=onnx,
        force=force,
        project=project,
        trust=trust_python,
    )


@command(group)
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
    checkpoint: CheckpointOption = None,
    device: DeviceOption = None,
    project: RunProject = None,
    trust_python: TrustPython = False,
) -> None:
    """Predict new images over HTTP.

    foldsmith serve --run output/900_ensemble
    foldsmith serve --run predictor --port 8080

    POST images to /predict; /docs says how, GET /health whether it is up. Whoever reaches the
    address may ask: there are no passwords. Writes nothing; Ctrl-C ends it.
    """
    missing = [name for name in _FOR_SERVE if importlib.util.find_spec(name) is None]
    if missing:
        raise FoldsmithError(f"serve needs {', '.join(missing)}; run: {install_command('serve')}")
    from foldsmith.extras.serve.limits import Limits
    from foldsmith.extras.serve.service import serve

    serve(
        *(finished, host, port),
        Limits(max_megabytes, max_megapixels, max_requests, timeout),
        blend=blend,
        checkpoint=checkpoint,
        device=device,
        project=project,
        trust=trust_python,
    )
