"""The tail of an error message about a wrong name: the suggested name."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, accepted: Iterable[str]) -> str:
    """Return `` (did you mean a or b?)`` or, with nothing near, the accepted names.

    Args:
        name: What stands in the file.
        accepted: What may stand there.
    """
    names = sorted(accepted)
    folded = {candidate.lower(): candidate for candidate in names}
    near = difflib.get_close_matches(name.lower(), list(folded), n=3, cutoff=0.6)
    if near:
        return f" (did you mean {' or '.join(folded[match] for match in near)}?)"
    return f" (accepted: {', '.join(names) or 'none'})"
