"""Execute the notebook, and keep it with its outputs."""

import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent / "quickstart.ipynb"


def main() -> None:
    """Run every cell in a new kernel; write the notebook when all have run."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    text = nbformat.writes(without_traces(notebook))
    # The images lie in a temporary folder, whose name is another one each time.
    text = re.sub(re.escape(tempfile.gettempdir()) + r"/tmp\w+", "WORK", text)
    NOTEBOOK.write_text(text + "\n", encoding="utf-8")
    print(f"wrote {NOTEBOOK.name}")


def without_traces(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a notebook without the times and names of the machine that has executed it."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata.pop("language_info", None)
    return notebook


if __name__ == "__main__":
    main()
