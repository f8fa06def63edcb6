"""The run directory, the Optuna study and its storage, the recipe file and the event log."""
