"""One training: the loop, its steps, schedules, and the extensions of its manager."""
