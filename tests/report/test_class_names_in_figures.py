import io

import numpy as np
import pytest

from foldsmith.report import figures

NAMES = ["$a_$", "b$^{", "x\ny", "_hidden", "k" * 99, "日本", "<b>"]


@pytest.mark.parametrize("names", [NAMES, [f"class {k}" for k in range(300)]])
def test_classes_are_drawn_whatever_they_are_called(names):
    rng = np.random.default_rng(0)
    values = list(map(float, range(len(names))))
    targets, predicted = (rng.permutation(values * 2) for _ in range(2))
    features = rng.normal(size=(len(targets), 4)).astype(np.float32)
    for figure in (
        figures.confusion(targets, predicted, values, names),
        figures.map_of(features, targets, names),
        figures.matrix(names[:7], np.eye(7), "correlation"),
    ):
        figure.savefig(io.BytesIO(), format="svg")
