"""The five stages of a project as plain functions, the check of an experiment, new photos."""

from foldsmith.config import Project
from foldsmith.stages.check import check, show_augmentations
from foldsmith.stages.ensemble import ensemble
from foldsmith.stages.export import export
from foldsmith.stages.infer import infer
from foldsmith.stages.new import new_project
from foldsmith.stages.predict import predict
from foldsmith.stages.preprocess import preprocess
from foldsmith.stages.pretrain import pretrain
from foldsmith.stages.train import train

__all__ = [
    "Project",
    "check",
    "ensemble",
    "export",
    "infer",
    "new_project",
    "predict",
    "preprocess",
    "pretrain",
    "show_augmentations",
    "train",
]
