"""Simulated execution: a target's own runtime, run instruction by instruction on a model of its CPU."""
