"""Records of candidates in the exchange, with their files."""

from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from orchestrator.measuring.model_info import ModelInfo
from orchestrator.study.distributed.exchange import Exchange, Missing, StoredFile
from orchestrator.study.run.directory import RunDirectory
from orchestrator.values.results import CandidateResult


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedRecord:
    """Record of a candidate that one process leaves for the others.

    Attributes:
        device_class: Class of the device that measured it; empty if none did.
        model: File of a candidate that is built and not measured yet.
        files: Its files; empty if no process needs them.
        samples: Its raw times, or None.
    """

    candidate: CandidateResult
    device_class: str = ""
    model: ModelInfo | None = None
    files: tuple[StoredFile, ...] = ()
    samples: StoredFile | None = None


_ADAPTER: TypeAdapter[SharedRecord] = TypeAdapter(SharedRecord)


class Records:
    """The records of one study.

    Args:
        run: Run directory of this process.
    """

    def __init__(self, exchange: Exchange, run: RunDirectory) -> None:
        self._exchange, self._run = exchange, run

    def write(
        self,
        candidate: CandidateResult,
        number: int,
        *,
        device_class: str = "",
        model: ModelInfo | None = None,
        with_files: bool = False,
    ) -> str:
        """Write a candidate's files and its record, and return the record's digest.

        Args:
            candidate: The candidate.
            number: Number of its trial.
            device_class: Class of the device that measured it; empty if none did.
            model: Its file, if it is built and not measured yet.
            with_files: True to write its files too, which the leader's own candidates do not need.

        Raises:
            EnvironmentFailure: The exchange is out of reach or full.
        """
        files: tuple[StoredFile, ...] = ()
        samples = None
        if with_files:
            folder = self._run.folder(candidate.id)
            sources = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
            files = tuple(self._exchange.put(path, self._files(candidate.id)) for path in sources)
            if (raw := self._run.samples / f"{candidate.id}.npz").is_file():
                samples = self._exchange.put(raw, self._files(candidate.id))
        record = SharedRecord(candidate=candidate, device_class=device_class, model=model, files=files, samples=samples)
        return self._exchange.write(_key(candidate.id, number, model is not None), _ADAPTER.dump_json(record))

    def read(self, identifier: str, number: int, digest: str, *, built: bool = False) -> SharedRecord:
        """Return the record that another process announced.

        Raises:
            Missing: It is missing, damaged, or of another candidate.
            EnvironmentFailure: The exchange is out of reach.
        """
        try:
            record = _ADAPTER.validate_json(self._exchange.read(_key(identifier, number, built), digest))
        except ValidationError:
            raise Missing(identifier) from None
        if record.candidate.id != identifier or (built and record.model is None):
            raise Missing(identifier)
        return replace(record, candidate=replace(record.candidate, trial=number))

    def fetch(self, record: SharedRecord) -> None:
        """Copy a candidate's files into this process's run directory.

        Raises:
            Missing: A file is missing or damaged.
            EnvironmentFailure: The exchange is out of reach.
        """
        folder = self._run.folder(record.candidate.id)
        self._run.drop(record.candidate.id)
        for stored in record.files:
            self._exchange.fetch(stored, folder)

    def fetch_samples(self, record: SharedRecord) -> None:
        """Copy a candidate's raw times; raises the errors of `fetch`."""
        if record.samples is not None:
            stored = replace(record.samples, name=f"{record.candidate.id}.npz")
            self._exchange.fetch(stored, self._run.samples)

    def path_of(self, record: SharedRecord, original: str) -> Path:
        """Return the path of a file of the record after `fetch`.

        Args:
            record: The record.
            original: Its path on the machine that built it, of which only the name is used.

        Raises:
            Missing: The record has no such file.
        """
        name = Path(original).name
        if all(stored.name != name for stored in record.files):
            raise Missing(record.candidate.id)
        return self._run.folder(record.candidate.id) / name

    def delete_files(self, identifier: str) -> None:
        """Delete a candidate's files from the exchange; its record stays."""
        self._exchange.delete(self._files(identifier))

    def with_files(self) -> set[str]:
        """Return the candidates whose files are in the exchange.

        Raises:
            EnvironmentFailure: The exchange is out of reach.
        """
        return {path.split("/")[-2] for path in self._exchange.glob("candidates/*/files")}

    @staticmethod
    def _files(identifier: str) -> str:
        return f"{_folder(identifier)}/files"


def _key(identifier: str, number: int, built: bool) -> str:
    return f"{_folder(identifier)}/{number}{'-built' if built else ''}.json"


def _folder(identifier: str) -> str:
    if not identifier.isalnum():  # the id comes from the study and must not leave the folder
        raise Missing(identifier)
    return f"candidates/{identifier}"
