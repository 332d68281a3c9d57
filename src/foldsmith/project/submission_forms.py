"""The forms that a sample submission may have, and which of them it has.

A new form is a class derived from :class:`~foldsmith.project.submission_base.SubmissionForm` and
its place in :data:`FORMS`.
"""

from dataclasses import replace

from foldsmith.errors import DataError
from foldsmith.project.submission_base import Sample, SubmissionForm
from foldsmith.project.submission_class_targets import JoinedTargets, LongTargets, TargetColumns
from foldsmith.project.submission_columns import ClassColumns, LabelColumns, NumberColumns
from foldsmith.project.submission_ids import id_column_of
from foldsmith.project.submission_one_column import OneColumn, RankedClasses, SecondClass
from foldsmith.project.submission_rows import JoinedIds, JoinedNumbers, LongClasses, LongNumbers

FORMS: tuple[type[SubmissionForm], ...] = (
    ClassColumns,
    LabelColumns,
    LongClasses,
    JoinedIds,
    RankedClasses,
    SecondClass,
    OneColumn,
    NumberColumns,
    LongNumbers,
    JoinedNumbers,
    TargetColumns,
    LongTargets,
    JoinedTargets,
)


def form_of(sample: Sample) -> SubmissionForm:
    """Return the form of a sample submission.

    Raises:
        DataError: It has none of the forms, or its ids are not those of the test table.
    """
    # Before the ids are looked for: joined with labels they are none.
    for joined in (JoinedIds, JoinedNumbers, JoinedTargets):
        found = joined.recognise(sample)
        if found is not None:
            return found
    sample = replace(
        sample,
        id_column=id_column_of(
            *(sample.path, sample.table, sample.ids),
            id_name=sample.id_name,
            target=sample.target,
            source=sample.source,
        ),
    )
    for form in FORMS:
        recognised = form.recognise(sample) if sample.kind in form.suits else None
        if recognised is not None:
            return recognised
    wanted = dict.fromkeys(form.wanted(sample) for form in FORMS if sample.kind in form.suits)
    raise DataError(
        f"{sample.path}: no column of predictions (it has: {', '.join(sample.table.columns)}); "
        f"have {', or '.join(wanted)}"
    )
