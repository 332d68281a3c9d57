"""The bundled project and the scripts of this repository, for the tests."""

import importlib.util
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
ATMACUP = REPOSITORY / "competitions" / "atmacup11"

# Everything that makes a run small, for any experiment of the bundled project.
SMALL = ["dataset/img_size=32", "loader/train/num_workers=0", "globals/max_epoch=2"]
SMALL_SSL = [*SMALL, "loader/train/batch_size=16", "globals/snapshot_interval=1"]
SMALL_TRAIN = [*SMALL, "loader/train/batch_size=16", "model/pretrained=null"]
# A figure takes longer than an epoch here: one for each training is enough.
ONE_CURVE = ["extensions/lr_curve=null", "extensions/metric_curve=null"]


def load_script(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
