"""The pages: sections through a template, each into one file."""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from foldsmith.config import Checkpoint
from foldsmith.errors import OutputError
from foldsmith.project import ProjectFolder
from foldsmith.report.comparison_sections import lines_of, sections_of_comparison
from foldsmith.report.finished_run import read_finished
from foldsmith.report.parts import Section
from foldsmith.report.run_comparison import compare_runs
from foldsmith.report.sections import reason_of, sections_of
from foldsmith.run.plan import plan_of
from foldsmith.utils.atomic import remove_leftovers_of, write_text
from foldsmith.utils.memo import one_look

logger = logging.getLogger(__name__)

_TEMPLATE = Path(__file__).with_name("page.html")

# This line of the template marks a page as a report.
_GENERATOR = b'<meta name="generator" content="foldsmith">'

# Folder of the reports in the project folder, beside the outputs.
REPORTS = "reports"


def write_report(
    project: ProjectFolder,
    config: Path | str,
    overrides: Sequence[str] = (),
    output: Path | None = None,
    look_at: Sequence[str] = (),
) -> Path:
    """Write one HTML file with the results of an experiment and of the steps that it needs.

    It holds everything itself: it opens from a disk, without a network. Steps that are not
    done are named as such.

    Args:
        project: The project.
        config: Experiment file of any kind, relative to the project folder.
        overrides: As those of the run.
        output: The file; ``reports/NAME.html`` in the project folder if None.
        look_at: Ids of labelled images to show heat maps of,
            beside the worst and the best ones.

    Returns:
        The file.

    Raises:
        ConfigError: An experiment is wrong, or no labelled image has such an id.
        OutputError: The file exists already and is not a report.
    """
    plan = plan_of(project, config, overrides)
    name = Path(config).stem
    path = project.path(REPORTS) / f"{name}.html" if output is None else output
    _refuse_others(path)
    title = f"{project.settings.name}: {name}"
    with one_look():
        _write(path, title, reason_of(plan), sections_of(plan, look_at))
    return path


def compare(
    a: Path | str,
    b: Path | str,
    output: Path | None = None,
    *,
    checkpoint: Checkpoint | None = None,
    project: Path | str | None = None,
    trust: bool = False,
    show: Callable[[str], object] = logger.info,
) -> Path:
    """Write one HTML file that compares two finished runs, and show the comparison.

    Ensembles are compared by the cross-fitted predictions of the blend that they recommend,
    single experiments by their out-of-fold predictions, on the images that both have.

    Args:
        a: Output folder of an ensemble or of one experiment.
        b: Another one, of the same project or of another one with the same images.
        output: The file; ``reports/compare_A_B.html`` in the project of ``a`` if None.
        checkpoint: Which snapshots of a single experiment, if it was inferred by several.
        project: The project folder, which both are relative to then; None takes the ones that
            they lie in.
        trust: Run the Python that the projects bring, if they do.
        show: Called with each line of the result.

    Returns:
        The file.

    Raises:
        ConfigError: There is no project, or the runs are judged by different metrics.
        OutputError: A folder holds no finished run, the runs are of other images or targets, or
            the file exists already and is not a report.
    """
    runs = [read_finished(folder, project, checkpoint, trust) for folder in (a, b)]
    if runs[0].root == runs[1].root:
        raise OutputError(f"{runs[0].root}: is both runs; name another one to compare it with")
    comparison = compare_runs(*runs)
    for line in lines_of(comparison):
        show(line)
    name = f"compare_{runs[0].root.name}_{runs[1].root.name}.html"
    path = runs[0].project.path(REPORTS) / name if output is None else output
    _refuse_others(path)
    title = " and ".join(comparison.names)
    lead = f"{comparison.verdict}. {comparison.metric.title}: {comparison.difference}."
    _write(path, title, lead, sections_of_comparison(comparison))
    return path


def _refuse_others(path: Path) -> None:
    """Refuse to replace a file that is not a report.

    Raises:
        OutputError: The path holds such a file.
    """
    if path.is_file() and _GENERATOR not in path.read_bytes()[:1000]:
        raise OutputError(
            f"{path}: exists already and is not a foldsmith report; move or rename it"
        )


def _write(path: Path, title: str, lead: str, sections: Sequence[Section]) -> None:
    # Here, not above: `run` needs it at its end only.
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        title=title,
        subtitle=f"written {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        lead=lead,
        sections=sections,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers_of(path)
    write_text(path, page)
