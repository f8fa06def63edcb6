"""A child process that answers requests, watched from outside: nothing that it does can stop the search."""

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
from typing import Any

import psutil

from orchestrator.devices import interrupt
from orchestrator.errors import JobFailed

POLL_S = 0.05
POLLS_A_FAMILY = 10  # looking for children walks all of /proc
GRACE_S = 1.0  # a dead child's last words may still be on their way
Event = Callable[[dict[str, Any]], None]


class GuardedProcess:
    """One child that reads requests and writes replies, a line of JSON each.

    The child runs in a session of its own, so that Ctrl-C in the terminal reaches the orchestrator alone. Its standard error is
    kept in a file, whose end explains a crash.

    Args:
        command: What to run.
        environment: All of the child's environment variables.
        folder: Its working folder.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 closed when the child is gone for good
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
        self._told, self._writing = "", threading.Lock()
        self._process, self._family, self._polls = psutil.Process(self._child.pid), list[psutil.Process](), 0
        self._replies: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        stream = self._child.stdout
        if stream is not None:
            with stream:
                for line in stream:
                    self._replies.put(line.decode("utf-8", "replace"))
        self._replies.put(None)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether the child still runs."""
        return self._child.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How the child ended; None while it runs."""
        return self._child.poll()

    @property
    def last_words(self) -> str:
        """The end of what the child wrote to standard error."""
        return self._told or self._errors_end()

    def _write(self, data: bytes) -> None:
        if self._child.stdin is None:
            raise BrokenPipeError
        with self._writing:
            self._child.stdin.write(data)
            self._child.stdin.flush()

    def beat(self) -> None:
        """Send an empty line, a sign of life; from any thread. A child that is gone is not told."""
        with contextlib.suppress(OSError, ValueError):
            self._write(b"\n")

    def greeting(self, marker: str, *, timeout_s: float) -> dict[str, Any]:
        """The JSON of the first line that begins with `marker`; whatever a login shell prints before it is passed over.

        Raises:
            JobFailed: the child ended, or said no such line in time. It is dead then.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                line = self._replies.get(timeout=POLL_S)
            except queue.Empty:
                interrupt.check()
                if time.monotonic() > deadline:
                    self.kill()
                    raise JobFailed("timeout", f"no answer within {timeout_s:.0f} s") from None
                continue
            if line is None:
                raise self._crash()
            if line.startswith(marker):
                try:
                    said: dict[str, Any] = json.loads(line[len(marker) :])
                except ValueError:
                    raise self._crash() from None
                return said

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
            message: What to ask; JSON.
            timeout_s: After so many seconds without a result the child is killed.
            memory_bytes: The child is killed when its resident memory, its children's included, passes this.
            on_event: Called with each interim message.

        Raises:
            JobFailed: the child raised, crashed, hung or outgrew its memory. After all but the first it is dead.
        """
        deadline, died = time.monotonic() + timeout_s, 0.0
        try:
            self._write(json.dumps(message).encode() + b"\n")
        except (BrokenPipeError, ValueError):
            raise self._crash() from None
        while True:
            try:
                line = self._replies.get(timeout=POLL_S)
            except queue.Empty:
                interrupt.check()
                if not self.alive:
                    # Its end is not seen on the pipe while a child of its own holds that open.
                    died = died or time.monotonic()
                    if time.monotonic() - died > GRACE_S:
                        raise self._crash() from None
                    continue
                if time.monotonic() > deadline:
                    self.kill()
                    raise JobFailed("timeout", f"no answer within {timeout_s:.0f} s") from None
                if memory_bytes is not None and (used := self._resident_bytes()) > memory_bytes:
                    self.kill()
                    message_text = f"took {used / 1e6:.0f} MB of memory, more than the limit of {memory_bytes / 1e6:.0f} MB"
                    raise JobFailed("out-of-memory", message_text) from None
                continue
            if line is None:
                raise self._crash()
            try:
                reply = json.loads(line)
            except ValueError:
                raise self._crash() from None  # half a line: it died while it wrote
            if "event" in reply:
                interrupt.check()
                if on_event is not None:
                    on_event(reply)
                continue
            if "error" in reply:
                error = reply["error"]
                raise JobFailed(error["kind"], error["message"], error.get("step"))
            result: dict[str, Any] = reply["result"]
            return result

    def _resident_bytes(self) -> int:
        """Of the child and, as far as they are known, of its own children."""
        self._polls += 1
        if self._polls % POLLS_A_FAMILY == 1:
            with contextlib.suppress(psutil.Error):
                self._family = psutil.Process(self.pid).children(recursive=True)
        used = 0
        for process in (self._process, *self._family):
            with contextlib.suppress(psutil.Error):
                used += process.memory_info().rss
        return used

    def _crash(self) -> JobFailed:
        ended = True
        try:
            self._child.wait(GRACE_S)  # its pipe is closed before it is gone; its own end tells more than ours
        except subprocess.TimeoutExpired:
            ended = False
        self.kill()
        code = self._child.wait()
        told = self._last_error()
        tail = f": {told}" if told else ""
        if not ended:
            return JobFailed("crash", f"the process closed its connection and had to be ended{tail}")
        if code == -signal.SIGKILL:
            return JobFailed("out-of-memory", f"the process was killed from outside, most likely for its memory{tail}")
        if code < 0:
            return JobFailed("crash", f"the process died of {signal.Signals(-code).name}{tail}")
        return JobFailed("crash", f"the process ended by itself with exit code {code}{tail}")

    def _last_error(self) -> str:
        """The last line that the child wrote to standard error."""
        lines = self.last_words.strip().splitlines()
        return lines[-1].strip()[:300] if lines else ""

    def _errors_end(self) -> str:
        if self._errors.closed:
            return ""
        size = self._errors.seek(0, 2)
        self._errors.seek(max(0, size - 4096))
        return self._errors.read().decode("utf-8", "replace")

    def end(self, grace_s: float) -> None:
        """Close the child's input and let it end by itself; kill what is still there after so many seconds."""
        if self._child.stdin is not None:
            with contextlib.suppress(OSError):
                self._child.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(grace_s)
        self.kill()

    def kill(self) -> None:
        """End the child and its children at once, and free what they held. May be called twice."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)  # the child leads a session of its own: all that it started goes too
        self._child.kill()
        self._child.wait()
        if self._child.stdin is not None:
            with contextlib.suppress(OSError):
                self._child.stdin.close()
        self._reader.join(timeout=5)
        self._told = self._told or self._errors_end()
        self._errors.close()
