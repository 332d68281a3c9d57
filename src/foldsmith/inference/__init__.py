"""Honest predictions: every labelled photo by the models that did not see it."""
