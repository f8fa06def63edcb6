"""Constraints, dominance, the Pareto front and the recommendation."""
