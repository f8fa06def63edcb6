import os

from orchestrator.plugin import hookimpl

print("hello from a plugin")
os.write(1, b"and from its C library\n")


@hookimpl
def orchestrator_trial_finished(trial):
    print("a trial:", trial.id)
