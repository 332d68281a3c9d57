"""Blending the predictions of several experiments."""
