"""Boards over ssh as devices: candidates are copied, timed and scored there."""

import hashlib
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orchestrator.errors import DeviceUnavailable, InputError, JobFailed
from orchestrator.plugin import Device, DeviceListing, Finding, Job, Runtime, SetupOptions
from orchestrator.plugin.processes import AgentSession, GuardedProcess, check_interrupt
from orchestrator_devices import board_setup, known_boards, openssh
from orchestrator_devices.board import BoardConnection, DiskFull
from orchestrator_devices.board_setup import Progress, distribution_of
from orchestrator_devices.openssh import FORM, Address

BACK_OFF_S = (1.0, 2.0, 4.0, 8.0)
LEAST_FREE_BYTES = 4_000_000
EVERYTHING = 10**15


class BoardSession(AgentSession):
    """A model in a guarded process on a board.

    Args:
        job: The model and how to run it.
        process: The guard on the board.
        model: The model's path on the board.
        inputs: The inputs' paths on the board, by name.
        device: The board.
        names: Names of the stored files of the model and its inputs.
    """

    def __init__(
        self, job: Job, process: GuardedProcess, *, model: str, inputs: dict[str, str], device: "SshDevice", names: Iterable[str]
    ) -> None:
        self._device, self._board, self.names = device, device.board, frozenset(names)
        super().__init__(job, process, model=model, inputs=inputs, memory_bytes=None)

    def _ask(self, **request: Any) -> dict[str, Any]:
        try:
            return super()._ask(**request)
        except JobFailed as failure:
            raise self._board.judge(failure, self._process) from None

    def predict(self, folder: Path, *, batch: int) -> list[Path]:
        """Run all examples on the board, and copy each output here."""
        try:
            return self._predict(folder, batch)
        except DiskFull:
            self._device.make_room()
            return self._predict(folder, batch)

    def _predict(self, folder: Path, batch: int) -> list[Path]:
        name = uuid.uuid4().hex  # deleted by the next search if this one ends meanwhile
        remote = self._board.ask("open_folder", name=name)["path"]
        try:
            paths = self._ask(do="predict", folder=remote, batch=batch)["paths"]
            local = [folder / Path(path).name for path in paths]
            for path, copy in zip(paths, local, strict=True):
                self._board.fetch(path, copy)
        except (JobFailed, DiskFull):
            self._board.ask("close_folder", name=name)
            raise
        self._board.ask("close_folder", name=name)
        return local

    def close(self) -> None:
        """End the guard and the model's process."""
        self._board.end_guard(self._process)
        self._device.closed(self)


class SshDevice(Device):
    """Boards over ssh; `attach` gives the one that an address names."""

    scheme = "ssh"
    remote = True

    def __init__(self, address: Address | None = None) -> None:
        self._board = None if address is None else BoardConnection(address)
        self._sessions: set[BoardSession] = set()
        self._digests: dict[tuple[str, int, int], str] = {}
        self._imports: tuple[str, ...] = ("onnxruntime",)
        self._versions: dict[str, str] = {}

    @property
    def board(self) -> BoardConnection:
        """The connection to the board.

        Raises:
            InputError: This instance stands for all boards.
        """
        if self._board is None:
            raise InputError(f"device 'ssh' needs an address: {FORM}")
        return self._board

    def attach(self, reference: str) -> "SshDevice":
        """Return the board that an address names."""
        if reference == self.scheme:
            raise InputError(f"device 'ssh' needs an address: {FORM}")
        return SshDevice(Address.parse(reference))

    def check(self, runtime: Runtime) -> None:
        """Lock the board, and check its packages and its disk."""
        self.board.lock()
        try:
            self._check_modules(runtime)
            free = self.board.ask("room", size=LEAST_FREE_BYTES, keep=[])["free_bytes"]
            if free < LEAST_FREE_BYTES:
                raise self.board.full(f"at least {LEAST_FREE_BYTES / 1e6:.0f} MB must be free")
        except BaseException:
            self.release()
            raise

    def _check_modules(self, runtime: Runtime) -> None:
        found = self.board.modules({"numpy", *runtime.imports})
        for name, answer in sorted(found.items()):
            if "error" in answer:
                how = f"orchestrate devices setup {self.board.name}"
                how += "" if runtime.name == "onnxruntime" else f" --runtime {runtime.name}"
                package = distribution_of(name)
                what = f"has no {package}" if answer["absent"] else f"cannot use its {package}: {answer['error']}"
                raise InputError(f"board {self.board.name} {what}, which runtime {runtime.name} needs; `{how}` installs it")
        self._imports = tuple(runtime.imports)
        self._versions = {name: answer["version"] for name, answer in found.items()}

    def open(self, job: Job) -> BoardSession:
        """Load a model in a fresh process on the board; a lost connection is retried for a while."""
        for wait in BACK_OFF_S:
            try:
                return self._open(job)
            except DeviceUnavailable:
                if not self.board.alive():
                    self.board.disconnect(lost=True)
                until = time.monotonic() + wait
                while time.monotonic() < until:
                    check_interrupt()
                    time.sleep(0.1)
        return self._open(job)

    def _open(self, job: Job) -> BoardSession:
        self.board.lock()
        paths = {job.model, *job.inputs.values()}
        digests = {path: self._digest(path) for path in paths}
        names = {path: digest + path.suffix for path, digest in digests.items()}
        missing = self.board.ask("present", names=sorted(set(names.values())))["missing"]
        keep = {*names.values(), *self._in_use()}
        for path in paths:
            if names[path] in missing:
                self.board.store(path, folder="files", name=names[path], sha256=digests[path], keep=keep)
                missing.remove(names[path])
        files = self.board.folder + "/files/"
        process = self.board.guard(threads=job.threads, memory_bytes=job.memory_bytes)
        inputs = {name: files + names[path] for name, path in job.inputs.items()}
        try:
            session = BoardSession(job, process, model=files + names[job.model], inputs=inputs, device=self, names=names.values())
        except BaseException:
            self.board.end_guard(process)
            raise
        self._sessions.add(session)
        return session

    def _digest(self, path: Path) -> str:
        found = path.stat()
        key = (str(path), found.st_size, found.st_mtime_ns)
        if key not in self._digests:
            with path.open("rb") as file:
                self._digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._digests[key]

    def _in_use(self) -> set[str]:
        return {name for session in self._sessions for name in session.names}

    def make_room(self) -> None:
        """Delete all stored files that no open session uses."""
        self.board.ask("room", size=EVERYTHING, keep=sorted(self._in_use()))

    def closed(self, session: BoardSession) -> None:
        """Let the session's files be deleted when space is needed."""
        self._sessions.discard(session)

    def environment(self) -> dict[str, Any]:
        """Return facts about the board, with the versions of its packages."""
        facts = self.board.ask("facts")
        if not self._versions:
            found = self.board.modules({"numpy", *self._imports})
            self._versions = {name: answer["version"] for name, answer in found.items() if "version" in answer}
        return {**facts, "versions": self._versions, "board": self.board.name}

    def status(self) -> dict[str, Any]:
        """Return the facts, and the search that uses the board now."""
        return {**self.environment(), "in_use_by": self.board.ask("holder")["held_by"]}

    def cores(self) -> int:
        """Return the number of the board's cores."""
        return int(self.board.ask("facts")["cores"])

    def release(self) -> None:
        """Close the connection, which unlocks the board."""
        if self._board is not None:
            self._board.disconnect()
        self._sessions.clear()

    def reference_form(self) -> str:
        """Return the form of addresses."""
        return FORM

    def references(self) -> list[str]:
        """Return the boards that were set up from here."""
        return [*known_boards.read(), f"{self.scheme}:"]

    def setup_references(self) -> list[str]:
        """Return the boards that were set up from here."""
        return list(known_boards.read())

    def listing(self) -> list[DeviceListing]:
        """Return the boards that were set up from here, and the form of addresses."""
        boards = [
            DeviceListing(reference=reference, text=f"board, set up {known_boards.summary(facts)}", facts=facts)
            for reference, facts in sorted(known_boards.read().items())
        ]
        return [*boards, DeviceListing(reference=FORM, text="any board over ssh, after `orchestrate devices setup`")]

    def diagnose(self) -> list[Finding]:
        """Examine the ssh client, and list the boards."""
        found = [self._client()]
        for reference, facts in sorted(known_boards.read().items()):
            text = f"set up {facts.get('set_up', '')}; to see if it is reachable: orchestrate devices check {reference}"
            found.append(Finding(section="devices", name=reference, state="ok", text=text))
        return found

    def _client(self) -> Finding:
        program = openssh.client()
        if program is None:
            text, fix = "no ssh client: boards cannot be reached", "apt-get install openssh-client"
            return Finding(section="devices", name=self.scheme, state="missing", text=text, fix=fix)
        text = f"{program}; boards: orchestrate devices setup {FORM}"
        return Finding(section="devices", name=self.scheme, state="ok", text=text)

    def setup(self, reference: str, options: SetupOptions, progress: Progress) -> str:
        """Set up a board."""
        return board_setup.set_up(Address.parse(reference), options, progress)

    def remove(self, reference: str) -> str | None:
        """Delete the folder on a board."""
        return board_setup.remove(Address.parse(reference))
