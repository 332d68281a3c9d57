"""The protocol of a self-supervised method: what the shared parts ask of it."""

import pytest
import torch
from torch import nn

from foldsmith.errors import ConfigError
from foldsmith.ssl.method import Method, depends_on_progress, feature_std, has_teacher, two_views
from foldsmith.ssl.momentum import momentum_at, momentum_copy
from foldsmith.steps.registry import LIBRARY_TYPES, METHODS
from foldsmith.training.pretrain_step import PretrainStep


class Following(Method):
    momentum = 0.5

    def __init__(self):
        super().__init__()
        self.backbone, self.dim = nn.Linear(2, 2), 2
        self.teacher = momentum_copy(self.backbone)

    def teachers(self):
        yield self.teacher, self.backbone

    def forward(self, views):
        first, second = two_views(views)
        loss = (self.backbone(first) - self.teacher(second)).square().mean()
        return {"loss": loss, "std": feature_std(first)}


class Scheduled(Following):
    def teachers(self):
        return ()

    def after_update(self, progress):
        self.seen = progress


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_the_package_follows_the_protocol(name):
    assert issubclass(LIBRARY_TYPES[name], Method)


def test_the_teacher_moves_after_each_update_of_the_training_step():
    model = Following()
    before, student = model.teacher.weight.clone(), model.backbone.weight.detach() + 1
    model.backbone.weight.data.copy_(student)
    PretrainStep(model).after_update(0.25)
    momentum = momentum_at(0.5, 0.25)
    torch.testing.assert_close(model.teacher.weight, momentum * before + (1 - momentum) * student)
    assert not model.teacher.weight.requires_grad


def test_planning_asks_a_method_for_its_teacher_and_its_schedule():
    teachers = {name for name in METHODS if has_teacher(LIBRARY_TYPES[name])}
    assert teachers == {"BYOL", "MoCoV3", "DINO"}
    scheduled = {name for name in METHODS if depends_on_progress(LIBRARY_TYPES[name])}
    assert scheduled == teachers | {"LeJEPA"}
    assert has_teacher(Following) and depends_on_progress(Following)
    assert depends_on_progress(Scheduled)
    # A function that makes a method may be a type too.
    assert not has_teacher(lambda backbone: Following())


def test_another_model_is_refused_with_the_remedy():
    with pytest.raises(ConfigError, match="Linear is not a self-supervised method; .*Method"):
        PretrainStep(nn.Linear(2, 2))
