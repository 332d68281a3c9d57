"""foldsmith: from a folder of photos and a CSV to a prediction, without pretrained weights.

The five stages are plain functions in :mod:`foldsmith.stages`; the ``foldsmith`` command
(:mod:`foldsmith.cli`) calls the same functions.
"""

__version__ = "0.1.0"
