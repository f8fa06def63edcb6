"""Where code really runs: guarded processes on this host, and the doors for boards and emulated CPUs."""
