"""Imported by the server of ``warm``: the modules that commands import, and one drawn figure."""

import atexit
import gc
import importlib
import pkgutil

import PIL.Image
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import foldsmith

LIBRARIES = (
    *("torch._dynamo", "torch.utils.serialization.config", "torch.utils.tensorboard", "timm"),
    *("torchvision", "lightly.loss", "lightly.models.modules.heads", "optuna", "safetensors.numpy"),
    *("scipy.optimize", "scipy.sparse.csgraph", "sklearn.compose", "sklearn.covariance"),
    *("sklearn.decomposition", "sklearn.ensemble", "sklearn.linear_model", "sklearn.metrics"),
    *("sklearn.model_selection", "sklearn.svm"),
)
for library in LIBRARIES:
    importlib.import_module(library)
for module in pkgutil.walk_packages(foldsmith.__path__, "foldsmith."):
    # Extras start what does not survive a fork; __main__ is the command.
    if not module.name.startswith(("foldsmith.extras", "foldsmith.__main__")):
        importlib.import_module(module.name)

PIL.Image.init()
# Matplotlib reads its fonts for the first figure.
figure = Figure(layout="constrained")
figure.subplots().plot([0, 1], label="a")
FigureCanvasAgg(figure).draw()
del figure

# Commands need not look for garbage among all that was imported.
gc.collect()
gc.freeze()
# At the server's own end, libraries complain about objects that are left.
atexit.register(gc.unfreeze)
