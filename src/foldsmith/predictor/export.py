"""A finished run as files for use elsewhere: a predictor, or a pretrained backbone."""

import logging
from pathlib import Path

from foldsmith.config import Checkpoint
from foldsmith.errors import ConfigError
from foldsmith.predictor.backbone_files import write_backbone
from foldsmith.predictor.export_folder import check_export_folder
from foldsmith.predictor.files import write_predictor
from foldsmith.predictor.predict import load
from foldsmith.steps.kinds.registry import kind_of
from foldsmith.steps.output_folder import shown
from foldsmith.steps.run_records import open_run, read_resolved

logger = logging.getLogger(__name__)


def export(
    run: Path | str,
    folder: Path | str,
    *,
    pick: str | int | None = None,
    blend: str | None = None,
    checkpoint: Checkpoint | None = None,
    onnx: bool = False,
    force: bool = False,
    project: Path | str | None = None,
    trust: bool = False,
) -> Path:
    """Write a finished run for use elsewhere.

    An ensemble, or a single experiment, becomes a folder that predicts without the project and
    its images: :func:`~foldsmith.predictor.predict.load` and ``predict`` take it as a run. A
    pretraining becomes a backbone that timm loads without foldsmith:
    :func:`~foldsmith.predictor.backbone_files.write_backbone`.

    Args:
        run: Output folder.
        folder: Output folder; created if needed.
        pick: Backbone of a pretraining: ``last`` (also if None), ``best_probe`` or an epoch.
        blend: Blend of an ensemble; the recommended one if None.
        checkpoint: Choice of snapshots of a single experiment that was inferred with several.
        onnx: Write the networks of an ensemble or experiment as ONNX files, for ONNX Runtime on a
            CPU.
        force: Replace an earlier export.
        project: The project folder, which ``run`` is relative to then; None takes the one that
            the run lies in.
        trust: Run the Python that the project brings, if it does.

    Returns:
        The folder.

    Raises:
        ConfigError: An argument is not for such a run, or an experiment is wrong.
        OutputError: The run is not finished, a file is missing or was changed, or the folder
            holds an export already, or something else.
    """
    opened, root = open_run(Path(run), project, trust)
    experiment = read_resolved(opened, root)
    target = Path(folder)
    check_export_folder(target, force)
    if kind_of(experiment).gives_files:
        if blend is not None or checkpoint is not None or onnx:
            raise ConfigError(
                f"{root}: is a pretraining, which has no blend and no checkpoint, and whose "
                "backbone is written for timm, not as ONNX"
            )
        write_backbone(experiment, root, target, "last" if pick is None else pick)
        return target
    if pick is not None:
        raise ConfigError(f"{root}: is no pretraining, of which a backbone could be picked")
    predictor = load(root, blend=blend, checkpoint=checkpoint, project=opened.folder, trust=trust)
    compared = write_predictor(predictor, target, onnx)
    how = f"{predictor.blend} of " if predictor.blend else ""
    logger.info(f"wrote {shown(target)} ({how}{', '.join(predictor.members)}); {compared}")
    return target
