"""Random chips, models, networks and trainings, from seeds."""
