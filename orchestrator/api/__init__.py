"""The operations behind the commands: search, worker, measure, estimate, compare, characterize and check."""
