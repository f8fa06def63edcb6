"""Measurements: the timing protocol, statistics, paired tests, quality with intervals, memory and energy."""
