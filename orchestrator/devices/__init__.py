"""Guarded processes, and sessions with the agent that runs a model on a device."""
