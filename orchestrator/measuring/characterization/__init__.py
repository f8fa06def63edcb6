"""Measuring a machine to make its hardware profile."""
