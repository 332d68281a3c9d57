"""The notebook, cell by cell in a kernel of its own."""

import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "quickstart.ipynb"

# The machine is measured in test_time.py, which takes longer than all that the notebook does.
GIVEN_SPEEDS = f"""
import sys
sys.path.append({str(Path(__file__).resolve().parent / "survival")!r})
from given_speeds import give_speeds
give_speeds()
"""
SMALLER = {"402:model/n_centres": 20, "404:model/n_components": 4}


def execute(notebook, tmp_path, monkeypatch):
    """Run every cell; an error in one is raised."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    return notebook


def outputs(notebook, kind, **having):
    """Return the outputs of a type in each code cell, one list per cell."""
    return [
        [
            output
            for output in cell.outputs
            if output.output_type == kind
            and all(output.get(key) == value for key, value in having.items())
        ]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.fixture
def quickstart():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_kept_with_its_outputs(quickstart):
    nbformat.validate(quickstart)
    cells = [cell for cell in quickstart.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    text = nbformat.writes(quickstart)
    assert text.count('"image/png"') >= 6 and "everything is done" in text
    assert '"output_type": "error"' not in text
    assert tempfile.gettempdir() not in text and str(Path.home()) not in text


def test_it_leads_from_images_to_predictions(quickstart, tmp_path, monkeypatch):
    first, *others = [cell for cell in quickstart.cells if cell.cell_type == "code"]
    first.source += GIVEN_SPEEDS
    (run,) = [cell for cell in others if "project.run(" in cell.source]
    run.source = f"tiny = {SMALLER}\n" + run.source.replace("tiny = {", "tiny |= {")
    notebook = execute(quickstart, tmp_path, monkeypatch)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]

    def shown(source, kind):
        (cell,) = [cell for cell in cells if source in cell.source]
        found = [o.data[kind] for o in cell.outputs if kind in o.get("data", {})]
        assert found, (source, cell.outputs)
        return found[-1]

    assert "train 410 fold 1" in shown("project.status(", "text/html")
    scores = shown("results.scores", "text/html")
    for words in ("cross_fitted", "410_regression", "avg-all", "in_sample", "low", "high"):
        assert words in scores
    for source in (
        *("results.plot_scores", "results.plot_learning_curves", "regression.plot_learning"),
        *("results.plot_predicted_against_true", "results.plot_confusion"),
    ):
        assert len(shown(source, "image/png")) > 2000
    assert "spread" in shown("predictor.predict(", "text/html")
    assert shown("project.report(", "text/plain") == "'901.html'"
    text = "".join(o.text for found in outputs(notebook, "stream", name="stdout") for o in found)
    assert "everything is done: 12 steps" in text and "\x1b" not in text and "\r" not in text
    # No warning but that so small a run loses to a simple baseline, or that other tests keep
    # the cores busy, and of all the progress bars at most one output per cell, empty at the end.
    warned = [o.text for found in outputs(notebook, "stream", name="stderr") for o in found]
    expected = ("simple baseline", "other processes keep")
    lines = "".join(warned).splitlines()
    assert all(any(words in line for words in expected) for line in lines), lines
    bars = [
        [o for o in found if "image/png" not in o.data]
        for found in outputs(notebook, "display_data")
    ]
    assert max(map(len, bars)) == 1
    assert all(o.data["text/html"] == "" for found in bars for o in found)


def test_open_bars_are_shown_in_one_place(tmp_path, monkeypatch):
    source = """
from foldsmith.utils.progress_bars import progress_bar
with progress_bar(total=2, label="<outer>", unit="epoch") as bar:
    for k in range(2):
        for _ in progress_bar(range(3), label="inner", unit="batch"):
            pass
        bar.update(1)
    kept = progress_bar(total=9, label="kept", unit="batch")
for _ in progress_bar(range(3), label="later", unit="batch"):
    pass
"""
    cells = [nbformat.v4.new_code_cell(text) for text in (source, "kept.close()")]
    notebook = execute(nbformat.v4.new_notebook(cells=cells), tmp_path, monkeypatch)
    first, second = outputs(notebook, "display_data")
    (bars,) = first
    assert bars.data["text/html"].startswith("<pre>kept |          | 0/9 batches</pre>")
    assert [bar.data["text/html"] for bar in second] == [""]
