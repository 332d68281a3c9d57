"""The kinds of steps, one file each; they need no torch, see :mod:`foldsmith.steps.base`."""
