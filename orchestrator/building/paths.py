"""Where things lie in a run's work folder that both the search and its build worker know."""

from pathlib import Path


def builds(work: Path) -> Path:
    """Where the build worker keeps what serves more than one candidate."""
    return work / "builds"


def sketches(work: Path) -> Path:
    """Return the folder of what is built without training."""
    return work / "sketches"


def checkpoints(builds: Path) -> Path:
    """Where trainings that are under way keep their state."""
    return builds / "checkpoints"


def laid_out(folder: Path, split: str, index: int) -> Path:
    """Return the file of the input of that index; an input's own name may be no legal file name."""
    return folder / split / f"input{index}.npy"
