"""The search: which recipe is asked for next, what is kept of it, and which model is recommended."""
