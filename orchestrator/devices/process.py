"""A guarded child process: nothing that it does can stop the search."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

from orchestrator.devices import interrupt
from orchestrator.devices.agent import ending
from orchestrator.errors import JobFailed

POLL_S = 0.05
POLLS_A_FAMILY = 10  # finding children walks all of /proc
GRACE_S = 1.0  # the last output of a dead child may still be on its way
ERRORS_BYTES = 4096
Event = Callable[[dict[str, Any]], None]


class GuardedProcess:
    """A child process that is watched while it works; usually one that reads requests and writes replies, a line of JSON each.

    The child runs in a session of its own, so that Ctrl-C in the terminal reaches the orchestrator alone. Its standard error is
    kept in a file, whose end explains a crash.

    Args:
        command: The command line.
        environment: All of the child's environment variables.
        folder: Its working folder.
        source: A file for its standard input; None: requests.
        output: A file for its standard output; None: replies.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        *,
        source: IO[bytes] | None = None,
        output: IO[bytes] | None = None,
    ) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 closed by `kill`
        self._child = subprocess.Popen(
            command,
            stdin=source or subprocess.PIPE,
            stdout=output or subprocess.PIPE,
            stderr=self._errors,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
        self._last_errors, self._writing = b"", threading.Lock()
        self._process, self._family, self._polls = psutil.Process(self._child.pid), list[psutil.Process](), 0
        self._replies: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        if (stream := self._child.stdout) is not None:
            with stream:
                for line in stream:
                    self._replies.put(line.decode("utf-8", "replace"))
        self._replies.put("")

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """True while the child runs."""
        return self._child.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The child's exit code; None while it runs."""
        return self._child.poll()

    @property
    def last_words(self) -> str:
        """The end of the child's standard error."""
        return (self._last_errors or self._errors_end()).decode("utf-8", "replace")

    def write(self, data: bytes) -> None:
        """Write to the child's standard input. Thread-safe.

        Raises:
            OSError: The child has ended.
            ValueError: The child was killed.
        """
        if self._child.stdin is None:
            raise BrokenPipeError
        with self._writing:
            self._child.stdin.write(data)
            self._child.stdin.flush()

    def beat(self) -> None:
        """Send an empty line as a sign of life, if the child still runs. Thread-safe."""
        with contextlib.suppress(OSError, ValueError):
            self.write(b"\n")

    def line(self, timeout_s: float = POLL_S) -> str | None:
        """Return the next line of the output, None if there is none yet, or an empty string at its end.

        Raises:
            Interrupted: The user has asked to stop.
        """
        try:
            return self._replies.get(timeout=timeout_s)
        except queue.Empty:
            interrupt.check()
            return None

    def wait(self, timeout_s: float) -> int:
        """Wait until the child ends, and return its exit code.

        Raises:
            JobFailed: It has not ended in time, and is killed.
            Interrupted: The user has asked to stop.
        """
        deadline = time.monotonic() + timeout_s
        while self.alive:
            interrupt.check()
            if time.monotonic() > deadline:
                raise self._timeout(timeout_s)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(POLL_S)
        return self._child.wait()

    def greeting(self, marker: str, *, timeout_s: float) -> dict[str, Any]:
        """Return the JSON of the first line that begins with `marker`, after whatever a login shell prints.

        Raises:
            JobFailed: The child ended without such a line, or there was none in time. It is dead then.
        """
        deadline = time.monotonic() + timeout_s
        while (line := self.line()) is None or not line.startswith(marker):
            if line == "":
                raise self._crash()
            if line is None and time.monotonic() > deadline:
                raise self._timeout(timeout_s)
        return self._parsed(line[len(marker) :])

    def request(
        self,
        message: Mapping[str, Any],
        *,
        timeout_s: float,
        memory_bytes: int | None = None,
        on_event: Event | None = None,
    ) -> dict[str, Any]:
        """Send a request and wait for its result.

        Args:
            message: The request, as JSON.
            timeout_s: The child is killed after so many seconds without a result.
            memory_bytes: The child is killed when its resident memory, its children's included, exceeds this.
            on_event: Called with each interim message.

        Raises:
            JobFailed: The child raised, crashed, hung or exceeded its memory. After all but the first it is dead.
        """
        deadline, died = time.monotonic() + timeout_s, 0.0
        try:
            self.write(json.dumps(message).encode() + b"\n")
        except (BrokenPipeError, ValueError):
            raise self._crash() from None
        while True:
            line = self.line()
            if line == "":
                raise self._crash()
            if line is not None:
                reply = self._parsed(line)
                if "event" not in reply:
                    break
                interrupt.check()
                if on_event is not None:
                    on_event(reply)
            elif not self.alive:
                died = died or time.monotonic()  # a child of its own may hold the pipe open
                if time.monotonic() - died > GRACE_S:
                    raise self._crash()
            elif time.monotonic() > deadline:
                raise self._timeout(timeout_s)
            elif memory_bytes is not None and (used := self._resident_bytes()) > memory_bytes:
                self.kill()
                limit = f"more than the limit of {memory_bytes / 1e6:.0f} MB"
                raise JobFailed("out-of-memory", f"took {used / 1e6:.0f} MB of memory, {limit}")
        if "error" in reply:
            error = reply["error"]
            raise JobFailed(error["kind"], error["message"], error.get("step"))
        result: dict[str, Any] = reply["result"]
        return result

    def _parsed(self, line: str) -> dict[str, Any]:
        try:
            message: dict[str, Any] = json.loads(line)
        except ValueError:
            raise self._crash() from None  # half a line: it died while it wrote
        return message

    def _resident_bytes(self) -> int:
        """Return the resident memory of the child and, as far as they are known, of its own children."""
        self._polls += 1
        if self._polls % POLLS_A_FAMILY == 1:
            self._family = self.descendants()
        used = 0
        for process in (self._process, *self._family):
            with contextlib.suppress(psutil.Error):
                used += process.memory_info().rss
        return used

    def descendants(self) -> list[psutil.Process]:
        """Return the child's own children and theirs."""
        try:
            return self._process.children(recursive=True)
        except psutil.Error:
            return []

    def _timeout(self, timeout_s: float) -> JobFailed:
        self.kill()
        return JobFailed("timeout", f"no answer within {timeout_s:.0f} s")

    def _crash(self) -> JobFailed:
        ended = True
        try:
            self._child.wait(GRACE_S)  # its pipe is closed before it is gone; its own exit code explains more than a kill
        except subprocess.TimeoutExpired:
            ended = False
        self.kill()
        failure = ending(self._child.wait() if ended else 0, self._last_errors)
        if not ended:
            tail = failure["message"].partition(": ")
            return JobFailed("crash", f"the process closed its connection and had to be ended{tail[1]}{tail[2]}")
        return JobFailed(failure["kind"], failure["message"])

    def _errors_end(self) -> bytes:
        if self._errors.closed:
            return b""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - ERRORS_BYTES))
        return self._errors.read()

    def end(self, grace_s: float) -> None:
        """Close the child's input, and kill the child if it has not ended after so many seconds."""
        self._close_input()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(grace_s)
        self.kill()

    def kill(self) -> None:
        """End the child and all its children at once, and free what they held. May be called twice."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)  # the child leads a session of its own
        self._child.kill()
        self._child.wait()
        self._close_input()
        self._reader.join(timeout=5)
        self._last_errors = self._last_errors or self._errors_end()
        self._errors.close()

    def _close_input(self) -> None:
        if self._child.stdin is not None:
            with contextlib.suppress(OSError):
                self._child.stdin.close()
