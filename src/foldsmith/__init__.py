"""foldsmith: from a folder of images and a CSV to a prediction, without pretrained weights.

:class:`Project` runs experiments and returns their results; :func:`load` predicts new images. The
five stages are plain functions in :mod:`foldsmith.steps`; the ``foldsmith`` command
(:mod:`foldsmith.cli.main`) calls the same functions.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foldsmith.utils.lazy_import import later

if TYPE_CHECKING:
    from foldsmith.api import Project
    from foldsmith.config import Checkpoint
    from foldsmith.predictor.predictor import Predictor

__all__ = ["Project", "load"]

__version__ = "0.1.0"

# Torch reads it when it is loaded: operations that Apple's GPU lacks are then computed on the CPU,
# with a warning, and do not end the training.
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

# pytorch-pfn-extras imports torch._dynamo for this function, which took half of the start-up time
# of every command.
later("pytorch_pfn_extras._dynamo", "compile")


def __getattr__(name: str) -> Any:
    # Only when it is asked for: torch takes seconds, and the command line should answer at once.
    if name == "Project":
        from foldsmith.api import Project

        return Project
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load(
    run: Path | str,
    *,
    blend: str | None = None,
    checkpoint: "Checkpoint | None" = None,
    device: str | None = None,
    project: Path | str | None = None,
    trust: bool = False,
) -> "Predictor":
    """Return a predictor of new images: the models and the blend of a finished run.

    Args:
        run: Output folder of an ensemble, or of one experiment whose folds' models are averaged;
            or a folder written by ``foldsmith export``.
        blend: Blend of the ensemble; the one that it recommends if None.
        checkpoint: Which snapshots of a single experiment, if it was inferred by several.
        device: Where to compute, as in ``globals/device``; None for the device of each experiment.
        project: The project folder; ``run`` is relative to it. None takes the one that
            the run lies in.
        trust: Run the Python that the project or export brings, if it does; read it first. An
            export needs this each time; a project until its Python changes only once.

    Returns:
        An object whose ``predict`` takes paths, arrays and PIL images.

    Raises:
        FoldsmithError: There is no finished run, a file that it needs is missing, or something
            is not as it was when the run predicted the test images.
    """
    # Here, not above: as Project.
    from foldsmith.predictor.predict import load as load_run

    return load_run(
        run, blend=blend, checkpoint=checkpoint, device=device, project=project, trust=trust
    )
