import copy

import pytest
import torch
from torch import nn

from foldsmith.training.ema import ModelEma


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def change(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))
    module.train()(torch.randn(8, 3))


def test_without_a_decay_it_is_the_model_itself():
    trained = model()
    average = ModelEma(trained, None)
    assert average.module is trained
    average.update()
    assert average.state_dict() == {}


def test_it_follows_the_model_by_its_decay():
    trained = model()
    average = ModelEma(trained, 0.5)
    assert average.module is not trained
    expected = None
    for step in range(1, 6):
        change(trained)
        average.update()
        # The first steps have less of a past than the decay says.
        decay = 0.0 if step == 1 else min(0.5, 1 - step ** (-2 / 3))
        expected = {
            key: value.clone()
            if expected is None or not value.is_floating_point()
            else decay * expected[key] + (1 - decay) * value
            for key, value in trained.state_dict().items()
        }
    for key, value in average.module.state_dict().items():
        torch.testing.assert_close(value, expected[key], msg=key)
    assert average.module[1].running_mean.ne(trained[1].running_mean).all()


def test_it_continues_where_it_was():
    trained = model()
    average = ModelEma(trained, 0.99)
    for _ in range(3):
        change(trained)
        average.update()
    restored = ModelEma(model(), 0.99)
    restored._model = trained
    restored.load_state_dict(copy.deepcopy(average.state_dict()))
    for each in (average, restored):
        each.update()
    first, second = average.module.state_dict(), restored.module.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert average.state_dict()["steps"] == 4 == restored.state_dict()["steps"]


@pytest.mark.parametrize("decay", [0.9, 0.9999])
def test_a_short_training_does_not_keep_its_start(decay):
    trained = model()
    average = ModelEma(trained, decay)
    with torch.no_grad():
        trained[0].weight.fill_(7.0)
    for _ in range(50):
        average.update()
    assert average.module[0].weight.eq(7.0).all()
