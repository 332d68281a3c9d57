"""The empty section of a step."""

from foldsmith.report.parts import Section
from foldsmith.steps.base import Step


def step_section(step: Step) -> Section:
    """Return a section with the title and the anchor of a step, without parts."""
    title = step.kind.title
    return Section(f"{title} {step.name}", f"{title}-{step.name}".lower())
