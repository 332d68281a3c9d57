"""Targets, losses, predictions from logits, and metrics."""
