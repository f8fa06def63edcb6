"""Where the data that devices score on lie in a run's work folder."""

from pathlib import Path


def laid_out(folder: Path, split: str, index: int) -> Path:
    """The file of the input of that index; an input's name is the user's, and no name for a file."""
    return folder / split / f"input{index}.npy"
