"""The five stages of a project, as plain functions, and the check of an experiment."""

from foldsmith.config import Project
from foldsmith.stages.check import check, show_augmentations
from foldsmith.stages.ensemble import ensemble
from foldsmith.stages.infer import infer
from foldsmith.stages.new import new_project
from foldsmith.stages.preprocess import preprocess
from foldsmith.stages.pretrain import pretrain
from foldsmith.stages.train import train

__all__ = [
    "Project",
    "check",
    "ensemble",
    "infer",
    "new_project",
    "preprocess",
    "pretrain",
    "show_augmentations",
    "train",
]
