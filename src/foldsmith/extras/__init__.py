"""Optional parts: estimates of time and disk, runs on Ray, the HTTP service."""
