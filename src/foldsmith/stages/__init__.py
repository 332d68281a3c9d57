"""The five stages of a project as plain functions, the check of an experiment, new photos."""

from foldsmith.config import Project
from foldsmith.stages.check import check, show_augmentations
from foldsmith.stages.ensemble import ensemble
from foldsmith.stages.export import export
from foldsmith.stages.infer import infer
from foldsmith.stages.new import Data, new_project, new_project_of
from foldsmith.stages.predict import predict
from foldsmith.stages.preprocess import preprocess
from foldsmith.stages.pretrain import pretrain
from foldsmith.stages.train import train

__all__ = [
    "Data",
    "Project",
    "check",
    "ensemble",
    "export",
    "infer",
    "new_project",
    "new_project_of",
    "predict",
    "preprocess",
    "pretrain",
    "show_augmentations",
    "train",
]
