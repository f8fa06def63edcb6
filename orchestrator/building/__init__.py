"""A recipe into an artifact: the task, the steps in order, the training loop, and the worker process they live in."""
