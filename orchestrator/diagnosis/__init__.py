"""Diagnosis of this machine, with what to install or set up.

`diagnose` examines libraries, plugins, runtimes, devices, targets and the machine itself. It is meant for machines where
something is wrong: libraries are imported in a process of their own, and a part that cannot be examined becomes a finding,
not an error.
"""

from collections.abc import Callable, Iterable

from orchestrator.diagnosis.result import Diagnosis
from orchestrator.values.finding import Finding

__all__ = ["Diagnosis", "Finding", "diagnose"]

Part = Callable[[], Iterable[Finding]]


def diagnose(*, target: str = "host") -> Diagnosis:
    """Examine everything that a search for the target needs; takes some seconds, mostly for importing torch.

    Args:
        target: A target's name, alias or .toml file.

    Returns:
        All findings; `works` is True if a search for the target would run. Nothing is left on the disk.
    """
    from orchestrator.diagnosis import libraries

    findings = [*_examined("libraries", libraries.program), *_examined("libraries", libraries.required)]
    unusable = {finding.name for finding in findings if not finding.usable}

    def after(section: str, needs: Iterable[str], part: Part) -> list[Finding]:
        """Examine a part that imports libraries itself, unless one of them could crash this process."""
        lacking = sorted(unusable & set(needs))
        if lacking:
            why = f"not examined, because {' and '.join(lacking)} cannot be used"
            return [Finding(section=section, name=section, state="broken", text=why, needed=True)]
        return _examined(section, part)

    def devices() -> Iterable[Finding]:
        from orchestrator.diagnosis import targets

        return targets.devices()

    def found_targets() -> Iterable[Finding]:
        from orchestrator.diagnosis import targets

        return targets.targets(target)

    def runtimes() -> Iterable[Finding]:
        from orchestrator.diagnosis import runtimes

        return runtimes.runtimes(target)

    def plugins() -> Iterable[Finding]:
        from orchestrator.diagnosis import plugins

        return plugins.plugins()

    def machine() -> Iterable[Finding]:
        from orchestrator.diagnosis import machine

        return machine.machine()

    planning = ("numpy", "onnx", "optuna", "platformdirs", "pluggy", "psutil", "pydantic")
    findings += _examined("extras", libraries.extras)
    findings += after("plugins", ("pluggy", "psutil", "pydantic"), plugins)
    findings += after("runtimes", planning, runtimes)
    findings += after("devices", planning, devices)
    findings += after("machine", ("platformdirs", "psutil"), machine)
    findings += after("targets", planning, found_targets)
    return Diagnosis(target=target, findings=tuple(findings))


def _examined(section: str, part: Part) -> list[Finding]:
    try:
        return list(part())
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:  # a damaged library may raise anything while it is imported
        why = f"could not be examined: {type(error).__name__}: {error}".splitlines()[0]
        return [Finding(section=section, name=section, state="broken", text=why, needed=True)]
