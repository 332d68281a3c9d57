"""The page: sections through a template, into one file."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from foldsmith.atomic import write_text
from foldsmith.config import Project
from foldsmith.pipeline.plan import plan_of
from foldsmith.report.sections import reason_of, sections_of

_TEMPLATE = Path(__file__).with_name("page.html")

# Where reports are, in the project folder: beside the outputs, which hold what was computed.
REPORTS = "reports"


def write_report(
    project: Project,
    config: Path | str,
    overrides: Sequence[str] = (),
    output: Path | None = None,
) -> Path:
    """Write one HTML file of what an experiment and all that it needs have found.

    It holds everything itself: it opens from a disk, without a network. Steps that are not
    done are named as such.

    Args:
        project: The project.
        config: Experiment file of any kind, relative to the project folder.
        overrides: As those of the run.
        output: The file; ``reports/NAME.html`` in the project folder if None.

    Returns:
        The file.

    Raises:
        ConfigError: An experiment is wrong.
    """
    # Here, not above: `run` needs it at its end only.
    from jinja2 import Environment, StrictUndefined

    plan = plan_of(project, config, overrides)
    name = Path(config).stem
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        title=f"{project.settings.name}: {name}",
        subtitle=f"written {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        lead=reason_of(plan),
        sections=sections_of(plan),
    )
    path = project.path(REPORTS) / f"{name}.html" if output is None else output
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)
    return path
