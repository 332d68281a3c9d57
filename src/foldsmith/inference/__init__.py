"""Honest predictions: every labelled image by the models that did not see it."""
