"""Predict new images with a finished run, and export one."""
