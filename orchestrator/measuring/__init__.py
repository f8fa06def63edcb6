"""Figures that were observed: the timing protocol, statistics, quality with intervals, sizes."""
