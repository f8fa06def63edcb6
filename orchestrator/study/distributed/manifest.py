"""The manifest of a shared study: one small user attribute that its leader publishes and replaces at once."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna
from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import InputError
from orchestrator.values.task import TaskSpec

ATTRIBUTE = "orchestrator"
SCHEMA = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Description of a shared study.

    Attributes:
        version: Version of the product.
        artifacts: URL of the exchange on the leader's machine.
        state, baseline: Digests of the run's state and of the original's record in the exchange.
        device_class: Class of the leader's device.
        leader: Token of the leader's process.
        host: Machine of the leader.
        trials: Candidates that the budget allows, of all processes together; None for any number.
        grace_s: Seconds without a heartbeat after which a process is considered dead.
        files: Digests of the user's own functions by their option (metric, loss, student).
        over: Why the search has ended; None while it runs.
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


def code_digests(task: TaskSpec) -> dict[str, str]:
    """Return the SHA-256 of the files of the user's own functions, by their options; packages are compared by their versions.

    Raises:
        OSError: A file is missing.
    """
    references = {"metric": task.metric, "loss": task.loss, "student": task.student}
    paths = {name: Path(reference.rpartition(":")[0]) for name, reference in references.items() if reference}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items() if path.suffix == ".py"}


def write_manifest(study: optuna.Study, manifest: Manifest) -> None:
    """Publish a manifest."""
    study.set_user_attr(ATTRIBUTE, asdict(manifest))


def read_manifest(attributes: Mapping[str, Any], name: str) -> Manifest | None:
    """Return the manifest among a study's attributes, or None if the study is not shared.

    Raises:
        InputError: Another version wrote it.
    """
    content = attributes.get(ATTRIBUTE)
    if content is None:
        return None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise InputError(f"study '{name}' was begun by another version of orchestrate; install the same on all machines")
    try:
        return _ADAPTER.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"study '{name}' cannot be read: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
