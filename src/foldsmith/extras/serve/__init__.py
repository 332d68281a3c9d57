"""Serve the predictions of a finished run over HTTP."""
