"""Run an experiment: plan its steps, find the stale ones, execute them, show their progress."""
