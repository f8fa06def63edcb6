"""A candidate in the exchange: its record, and the files that it names."""

from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from orchestrator.measuring.model_info import ModelInfo
from orchestrator.study.distributed.exchange import Exchange, Missing, StoredFile
from orchestrator.study.run.directory import RunDirectory
from orchestrator.values.results import CandidateResult


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedRecord:
    """What one process leaves for the others.

    Attributes:
        device_class: Of what it was timed on; empty where it was not.
        model: What is known of the file of a candidate that is built and not timed yet.
        files: Its files; empty where nobody needs them.
        samples: Its raw times.
    """

    candidate: CandidateResult
    device_class: str = ""
    model: ModelInfo | None = None
    files: tuple[StoredFile, ...] = ()
    samples: StoredFile | None = None


_ADAPTER: TypeAdapter[SharedRecord] = TypeAdapter(SharedRecord)


class Records:
    """The records of one search.

    Args:
        run: The run directory of this process.
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
        """Leave a candidate's record, its files first; returns the record's digest.

        Args:
            number: Of its trial.
            with_files: Whether its files go too; those of the leader's own candidates need not.

        Raises:
            EnvironmentFailure: the exchange is out of reach, full, ...
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
        """The record that another process announced.

        Raises:
            Missing: it is not there, not whole, or of something else.
            EnvironmentFailure: the exchange is out of reach.
        """
        try:
            record = _ADAPTER.validate_json(self._exchange.read(_key(identifier, number, built), digest))
        except ValidationError:
            raise Missing(identifier) from None
        if record.candidate.id != identifier or (built and record.model is None):
            raise Missing(identifier)
        return replace(record, candidate=replace(record.candidate, trial=number))

    def fetch(self, record: SharedRecord) -> None:
        """Bring a candidate's files into this process's run directory.

        Raises:
            Missing: one is not there, or damaged.
            EnvironmentFailure: the exchange is out of reach.
        """
        folder = self._run.folder(record.candidate.id)
        self._run.drop(record.candidate.id)
        for stored in record.files:
            self._exchange.fetch(stored, folder)

    def fetch_samples(self, record: SharedRecord) -> None:
        """Bring its raw times. Raises as `fetch` does."""
        if record.samples is not None:
            wanted = replace(record.samples, name=f"{record.candidate.id}.npz")
            self._exchange.fetch(wanted, self._run.samples)

    def path_of(self, record: SharedRecord, named: str) -> Path:
        """Where a file of the record lies after `fetch`.

        Args:
            named: Its path on the machine that made it; only the last part means anything here.

        Raises:
            Missing: the record has no such file.
        """
        name = Path(named).name
        if all(stored.name != name for stored in record.files):
            raise Missing(record.candidate.id)
        return self._run.folder(record.candidate.id) / name

    def forget_files(self, identifier: str) -> None:
        """A candidate's files are of no use in the exchange any more; its record stays."""
        self._exchange.delete(self._files(identifier))

    def with_files(self) -> set[str]:
        """The candidates whose files lie in the exchange.

        Raises:
            EnvironmentFailure: the exchange is out of reach.
        """
        return {found.split("/")[-2] for found in self._exchange.found("candidates/*/files")}

    @staticmethod
    def _files(identifier: str) -> str:
        return f"{_folder(identifier)}/files"


def _key(identifier: str, number: int, built: bool) -> str:
    return f"{_folder(identifier)}/{number}{'-built' if built else ''}.json"


def _folder(identifier: str) -> str:
    if not identifier.isalnum():  # it came from the study: a name that leads elsewhere is no candidate's
        raise Missing(identifier)
    return f"candidates/{identifier}"
