"""Estimate the time, the GPU hours and the disk that a run takes, before it begins."""
