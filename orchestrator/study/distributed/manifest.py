"""What the leader of a shared search says to all: one user attribute of the study, small, and replaced at once."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna
from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import InputError

ATTRIBUTE = "orchestrator"
SCHEMA = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A shared search.

    Attributes:
        version: Of the product.
        artifacts: The URL of the exchange as the leader sees it.
        state, baseline: Digests of the run's state and of the original's record, which lie in the exchange.
        device_class: Of what the leader times on.
        leader: The token of the leader's process.
        host: The leader's machine.
        trials: Candidates that the budget allows, of all processes together; None: any number.
        grace_s: After so many seconds without a sign of life a process is taken for dead.
        files: Digests of the user's own functions (metric, loss, student) by what they are for.
        over: Why the search has ended; None: it goes on.
    """

    schema: int = SCHEMA
    version: str
    artifacts: str
    state: str
    baseline: str
    device_class: str
    leader: str
    host: str
    trials: int | None
    grace_s: float
    files: dict[str, str] = field(default_factory=dict)
    over: str | None = None


_ADAPTER: TypeAdapter[Manifest] = TypeAdapter(Manifest)


def digests(references: Mapping[str, str | None]) -> dict[str, str]:
    """SHA-256 of the files behind `file.py:function` references, by what they are for; others are told by their versions."""
    paths = {name: Path(reference.rpartition(":")[0]) for name, reference in references.items() if reference}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items() if path.suffix == ".py"}


def write_charter(study: optuna.Study, charter: Manifest) -> None:
    """Publish it."""
    study.set_user_attr(ATTRIBUTE, asdict(charter))


def read_charter(attributes: dict[str, Any], name: str) -> Manifest | None:
    """The charter among a study's attributes; None where it is no shared search.

    Raises:
        InputError: another version wrote it.
    """
    found = attributes.get(ATTRIBUTE)
    if found is None:
        return None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise InputError(f"study '{name}' was begun by another version of orchestrate; install the same on all machines")
    try:
        return _ADAPTER.validate_python(found)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"study '{name}' cannot be understood: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
