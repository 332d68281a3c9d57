"""Run the steps of a plan as tasks of Ray."""
