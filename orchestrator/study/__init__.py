"""The search: proposal and evaluation of candidates, the Pareto front, and the recommendation."""
