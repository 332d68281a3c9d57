import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from foldsmith.targets.corn import Corn
from foldsmith.targets.losses import CornLoss

FOUR = Corn((0.0, 1.0, 2.0, 3.0))


@given(hnp.arrays(np.float32, (5, 3), elements=st.floats(-50, 50, width=32)))
def test_probabilities_fall_from_class_to_class(logits):
    above = FOUR.above(logits)
    assert (np.diff(above, axis=-1) <= 0).all()
    assert (above >= 0).all() and (above <= 1).all()
    predicted = FOUR.predict(logits)
    assert (predicted >= 0).all() and (predicted <= 3).all()


def test_the_prediction_is_the_expectation_of_the_class_values():
    task = Corn((1.0, 3.0, 10.0))
    assert task.n_outputs == 2
    # Above the first with 1/2, then above the second with 1/4: classes 1/2, 3/8, 1/8.
    logits = np.log(np.array([[0.5 / 0.5, 0.25 / 0.75]])).astype(np.float32)
    assert task.predict(logits)[0] == pytest.approx(0.5 * 1 + 0.375 * 3 + 0.125 * 10)


def test_the_loss_asks_only_those_who_got_there():
    logits = torch.tensor([[0.3, -0.2, 9.0], [1.0, 0.5, -0.7]])
    classes = torch.tensor([0, 2])
    # Class 0 answers the first question alone, class 2 all three.
    terms = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor([0.3, 1.0, 0.5, -0.7]), torch.tensor([0.0, 1.0, 1.0, 0.0])
    )
    assert CornLoss()(logits, classes).item() == pytest.approx(terms.item())


def test_training_finds_the_frequencies():
    targets = torch.tensor([0.0, 0, 1, 1, 1, 2, 3, 3])
    logits = torch.zeros(1, 3, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=60)

    def loss():
        optimizer.zero_grad()
        value = CornLoss()(logits.expand(8, 3), targets.long())
        value.backward()
        return value

    optimizer.step(loss)
    found = logits.detach().numpy()
    assert FOUR.predict(found)[0] == pytest.approx(targets.mean().item(), abs=1e-3)
    np.testing.assert_allclose(found[0], FOUR.constant_logits(targets.numpy()), atol=0.01)
