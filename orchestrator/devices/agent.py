"""The agent: a script that runs one exported model on a device and answers requests about it.

It needs only Python 3.8, NumPy and the runtime, because the same file runs on boards where the orchestrator is not installed; the
orchestrator itself imports some of its functions. Requests and replies are lines of JSON on standard input and on the file
descriptor that was standard output at the start (the output of libraries goes to standard error). It ends when its input ends.

Without arguments it serves one model. On a board its first argument is a mode, the second the mode's settings (JSON in
base64): `hold` holds the board's lock and its folder, `guard` watches one model's process, `store` and `fetch` transfer files.
Each of these begins with a line that starts with `MARKER`, because a login shell may print something before it. They end with
their input, or after `SILENCE_S` without any line, and end their processes.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import glob
import hashlib
import json
import os
import platform
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

EXAMPLES_TIMED = 16
CPUS = "/sys/devices/system/cpu"
THERMAL = "/sys/class/thermal"
POWERCAP = "/sys/class/powercap"
MARKER = "orchestrator-board:"
SILENCE_S = 60.0
POLL_S = 0.1
POLLS_A_FAMILY = 10  # finding children is slower than reading one process
STORE_BYTES = 2_000_000_000  # models and inputs that are kept for later runs
SPARE_BYTES = 1_000_000  # a full disk harms other programs too
PIP_S = 1800.0
IMPORT_S = 300.0
LOCK = "/tmp/orchestrator-board.lock"  # noqa: S108 one for all users; ORCHESTRATE_BOARD_LOCK names another
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
FIRMWARE_THROTTLED = "/sys/devices/platform/soc/soc:firmware/get_throttled"  # of a Raspberry Pi


def read_text(path: str) -> str | None:
    """Return the content of a file without the trailing newline, or None if it cannot be read."""
    try:
        with open(path) as file:  # noqa: PTH123
            return file.read().strip()
    except (OSError, UnicodeDecodeError):
        return None


def read_number(path: str, base: int = 10) -> int | None:
    """Return the integer in a file, or None."""
    text = read_text(path)
    try:
        return None if text is None else int(text, base)
    except ValueError:
        return None


# -- memory ---------------------------------------------------------------------------------------------------------


def resident_bytes(key: str) -> int | None:
    """Return VmRSS or VmHWM (peak) of this process, or None without /proc."""
    for line in (read_text("/proc/self/status") or "").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return None


def peak_bytes() -> int:
    """Return the peak resident memory of this process in bytes."""
    peak = resident_bytes("VmHWM:")
    if peak is None:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak *= 1 if sys.platform == "darwin" else 1024
    return peak


def reset_peak() -> int:
    """Reset the peak, so that the memory of imports is not counted as the model's, and return the memory in use."""
    try:
        with open("/proc/self/clear_refs", "w") as file:  # noqa: PTH123
            file.write("5")
    except OSError:
        pass
    return resident_bytes("VmRSS:") or peak_bytes()


# -- the machine ----------------------------------------------------------------------------------------------------


def usable_cores() -> list[int]:
    """Return the numbers of the cores that this process may use, or of all cores if the system does not know."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def fastest_cores(threads: int) -> list[int]:
    """Return the cores for a number of threads: the fastest, on distinct physical cores if possible, high numbers first.

    High numbers, because core 0 serves most interrupts. The result is the same for every call, so that models are comparable.
    """

    def speed(core: int) -> tuple[int, int]:
        folder = f"{CPUS}/cpu{core}"
        capacity = read_number(f"{folder}/cpu_capacity") or 0  # big.LITTLE: 1024 for the fastest
        return capacity, read_number(f"{folder}/cpufreq/cpuinfo_max_freq") or 0

    ordered = sorted(usable_cores(), key=lambda core: (*speed(core), core), reverse=True)
    firsts: list[int] = []
    seconds: list[int] = []
    taken: set[str] = set()
    for core in ordered:
        physical = read_text(f"{CPUS}/cpu{core}/topology/thread_siblings_list") or str(core)
        (seconds if physical in taken else firsts).append(core)
        taken.add(physical)
    return sorted((firsts + seconds)[:threads])


def pin(threads: int) -> list[int]:
    """Pin this process to the fastest cores, and return them; empty if the system cannot pin."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    cores = fastest_cores(threads)
    try:
        os.sched_setaffinity(0, cores)
    except OSError:
        return []
    return cores


def cpu_model() -> str:
    """Return the processor's name; on Linux from /proc/cpuinfo or the device tree (`platform` has only the architecture)."""
    for line in (read_text("/proc/cpuinfo") or "").splitlines():
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    board = read_text("/proc/device-tree/model")
    return (board or "").strip("\0") or platform.processor() or platform.machine()


def memory_bytes() -> int | None:
    """Return the machine's memory, or None if the system does not know."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def facts() -> dict[str, Any]:
    """Return the facts about the machine that can be read: CPU, system, cores, memory, governor, clock, load."""
    cores = usable_cores()
    found: dict[str, Any] = {
        "cpu": cpu_model(),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cores": len(cores),
        "memory_bytes": memory_bytes(),
    }
    policies = [f"{CPUS}/cpu{core}/cpufreq" for core in cores]
    governors = {read_text(f"{policy}/scaling_governor") for policy in policies} - {None}
    clocks = [clock for clock in (read_number(f"{policy}/cpuinfo_max_freq") for policy in policies) if clock]
    if governors:
        found["governor"] = ", ".join(sorted(str(name) for name in governors))
    if clocks:
        found["max_clock_mhz"] = max(clocks) / 1e3
    if hasattr(os, "getloadavg"):
        found["load"] = [round(value, 2) for value in os.getloadavg()]
    return {key: value for key, value in found.items() if value is not None}


def busy_seconds() -> tuple[float, float] | tuple[None, None]:
    """Return core seconds since the start: (of all processes, stolen by the hypervisor)."""
    text = read_text("/proc/stat")
    if text is None:
        try:
            import psutil

            times = psutil.cpu_times()
        except Exception:  # a system without /proc may have it; a board need not
            return None, None
        return times.user + times.system + getattr(times, "nice", 0.0), 0.0
    user, nice, system, _, _, irq, softirq, steal = (int(word) for word in text.split(None, 9)[1:9])
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / ticks, steal / ticks


def energy_joules() -> float | None:
    """Return the energy counter of the processor packages (RAPL), or None if it cannot be read."""
    used = []
    for zone in glob.glob(f"{POWERCAP}/intel-rapl:*"):  # noqa: PTH207
        if zone.count(":") == 1:  # packages, not their parts
            used.append(read_number(f"{zone}/energy_uj"))
    return None if not used or None in used else sum(number or 0 for number in used) * 1e-6


def throttling() -> bool | None:
    """Return True if a Raspberry Pi's firmware reports throttling right now, or None if there is no such firmware."""
    text = read_text(FIRMWARE_THROTTLED)
    try:
        return None if text is None else bool(int(text, 16) & 0xF)  # under-voltage, clock capped, throttled, soft limit
    except ValueError:
        return None


def state(cores: list[int]) -> dict[str, Any]:
    """Return the machine's current counters; `clock_mhz` is the mean of the given cores."""
    busy, stolen = busy_seconds()
    clocks = [read_number(f"{CPUS}/cpu{core}/cpufreq/scaling_cur_freq") for core in cores or usable_cores()]
    known = [clock for clock in clocks if clock]
    heats = [read_number(f"{zone}/temp") for zone in glob.glob(f"{THERMAL}/thermal_zone*")]  # noqa: PTH207
    hot = [heat for heat in heats if heat and heat > 0]
    slowed = [read_number(path) for path in glob.glob(f"{CPUS}/cpu*/thermal_throttle/*_throttle_count")]  # noqa: PTH207
    counts = [count for count in slowed if count is not None]
    return {
        "at_s": time.monotonic(),
        "busy_s": busy,
        "stolen_s": stolen,
        "cores": os.cpu_count() or 1,
        "clock_mhz": sum(known) / len(known) / 1e3 if known else None,
        "temperature_c": max(hot) / 1e3 if hot else None,
        "throttled": sum(counts) if counts else None,
        "throttling": throttling(),
        "energy_j": energy_joules(),
    }


def timer_resolution() -> float:
    """Return the smallest observed step of the wall clock in seconds."""
    steps = []
    for _ in range(200):
        begin = time.perf_counter_ns()
        end = begin
        while end == begin:
            end = time.perf_counter_ns()
        steps.append(end - begin)
    return min(steps) * 1e-9


# -- one model ------------------------------------------------------------------------------------------------------


class Agent:
    """The state of the process: the loaded model and its inputs."""

    def load(
        self,
        model: str,
        load: str,
        imports: list[str],
        inputs: dict[str, str],
        threads: int,
        options: dict[str, Any],
    ) -> dict[str, Any]:
        """Load the model; memory in use before that does not count as the model's."""
        self.cores = pin(threads)
        # The telemetry threads of onnxruntime 1.29 and later would disturb the timing.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import numpy as np

        for name in imports:
            __import__(name)
        self.inputs = {name: np.load(path, mmap_mode="r", allow_pickle=False) for name, path in inputs.items()}
        self.count = len(next(iter(self.inputs.values())))
        chosen = range(min(EXAMPLES_TIMED, self.count))
        self.timed = [{name: np.array(array[i : i + 1]) for name, array in self.inputs.items()} for i in chosen]
        namespace: dict[str, Any] = {}
        exec(compile(load, "<runtime>", "exec"), namespace)  # noqa: S102 the runtime plugin's own code
        self.empty = reset_peak()
        self.run = namespace["load"](model, threads, options)
        self.turn = 0
        return {"cores": self.cores}

    def time(self, seconds: float, runs: int, inner: int = 1) -> dict[str, Any]:
        """Time samples of `inner` inferences; each is [wall, CPU of this thread, of the process] per inference, in seconds."""
        samples: list[list[float]] = []
        run, share = self.run, 1e-9 / inner
        end = time.perf_counter() + seconds
        while len(samples) < runs:
            examples = [self.timed[(self.turn + k) % len(self.timed)] for k in range(inner)]
            self.turn += inner
            process, thread = time.process_time_ns(), time.thread_time_ns()
            wall = time.perf_counter_ns()
            for example in examples:
                run(example)
            wall = time.perf_counter_ns() - wall
            thread, process = time.thread_time_ns() - thread, time.process_time_ns() - process
            samples.append([wall * share, thread * share, process * share])
            if time.perf_counter() > end:
                break
        return {"samples": samples}

    def resolution(self) -> dict[str, Any]:
        """Return the smallest step of the timer in seconds."""
        return {"seconds": timer_resolution()}

    def state(self) -> dict[str, Any]:
        """Return the machine's current counters."""
        return state(self.cores)

    def memory(self) -> dict[str, Any]:
        """Return the peak resident memory so far, above that before the model was loaded."""
        return {"peak_bytes": max(0, peak_bytes() - self.empty)}

    def predict(self, folder: str, batch: int) -> dict[str, Any]:
        """Run all examples through the model, and write each output to a .npy file."""
        import numpy as np

        wholes: list[Any] = []
        for start in range(0, self.count, batch):
            stop = min(start + batch, self.count)
            outputs = self.run({name: np.array(array[start:stop]) for name, array in self.inputs.items()})
            outputs = [np.asarray(output) for output in outputs]
            for k, output in enumerate(outputs):
                if output.ndim == 0 or len(output) != stop - start:
                    raise ValueError(
                        f"output {k} has shape {output.shape} for {stop - start} examples: its first axis must be the examples"
                    )
            if not wholes:
                wholes = [np.empty((self.count, *output.shape[1:]), output.dtype) for output in outputs]
            for whole, output in zip(wholes, outputs):  # noqa: B905 strict came with Python 3.10
                whole[start:stop] = output
        paths = [os.path.join(folder, f"output{k}.npy") for k in range(len(wholes))]  # noqa: PTH118
        for path, whole in zip(paths, wholes):  # noqa: B905
            np.save(path, whole)
        return {"paths": paths}


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel (Linux) end this process when the orchestrator is killed, even in the middle of a computation.

    `parent` is the id of the process that started this one, which may have been killed before.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if parent is not None and os.getppid() != parent:
            os._exit(1)
        try:
            with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
                file.write("800")  # if memory runs out, this process goes before the orchestrator
        except OSError:
            pass


def reply_of(target: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Call the target's method `do`, and return its result or its failure as a reply."""
    try:
        return {"result": getattr(target, request.pop("do"))(**request)}
    except MemoryError as error:
        return {"error": {"kind": "out-of-memory", "message": f"MemoryError: {error}"}}
    except OSError as error:
        # NumPy's error for a file that comes out too short has no errno.
        short = error.errno is None and ("free space" in str(error) or "requested and" in str(error))
        kind = "surroundings" if short or error.errno in FULL else "error"
        return {"error": {"kind": kind, "message": f"{type(error).__name__}: {error}"}}
    except Exception as error:
        return {"error": {"kind": "error", "message": f"{type(error).__name__}: {error}"}}


def answer() -> None:
    """Answer requests about one model until the input ends."""
    die_with_parent()
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    agent = Agent()
    for line in sys.stdin:
        replies.write(json.dumps(reply_of(agent, json.loads(line))) + "\n")
        replies.flush()


# -- a board: talking to the host -------------------------------------------------------------------------------------


def write_all(data: bytes, descriptor: int = 1) -> None:
    """Write all data to a file descriptor."""
    while data:
        data = data[os.write(descriptor, data) :]


def reply(message: dict[str, Any]) -> None:
    """Write one line of JSON."""
    write_all(json.dumps(message).encode() + b"\n")


def greet(**more: Any) -> None:
    """Write the first line, with the digest of this file."""
    with open(__file__, "rb") as file:  # noqa: PTH123
        digest = hashlib.sha256(file.read()).hexdigest()
    write_all(f"\n{MARKER}{json.dumps({'digest': digest, **more})}\n".encode())


def heard_lines() -> Iterator[bytes]:
    """Yield the lines of standard input that are not empty, until it ends or is silent for too long."""
    rest = b""
    while select.select([0], [], [], SILENCE_S)[0]:
        data = os.read(0, 65536)
        if not data:
            return
        whole = (rest + data).split(b"\n")
        rest = whole.pop()
        for line in whole:
            if line.strip():
                yield line


# -- a board: its folder ----------------------------------------------------------------------------------------------


def home(*parts: str) -> str:
    """Return a path in the folder of this file: `venv`, `files`, `work`, `wheels`."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), *parts)  # noqa: PTH100, PTH118, PTH120


def clean_environment() -> dict[str, str]:
    """Return environment variables for a runtime, whose caches then lie in the folder and are removed with it."""
    return {"ORT_DISABLE_TELEMETRY": "1", **os.environ, "XDG_CACHE_HOME": home("cache")}


def free_bytes() -> int:
    """Return the free bytes of the folder's disk."""
    found = os.statvfs(home())
    return found.f_bavail * found.f_frsize


def make_room(size: int, keep: list[str]) -> int:
    """Delete the least recently used stored files until `size` bytes fit, and return the free bytes.

    Args:
        size: Bytes that must fit.
        keep: Names of files in use, which stay.
    """
    os.makedirs(home("files"), exist_ok=True)  # noqa: PTH103
    stored = []
    for entry in os.scandir(home("files")):
        with contextlib.suppress(OSError):
            stored.append((entry.stat().st_mtime, entry.stat().st_size, entry.name))
    total = sum(length for _, length, _ in stored)
    for _, length, name in sorted(stored):
        if total + size <= STORE_BYTES and free_bytes() >= size + SPARE_BYTES:
            break
        if name not in keep and not name.endswith(".part"):
            with contextlib.suppress(OSError):
                os.unlink(home("files", name))  # noqa: PTH108
                total -= length
    return free_bytes()


def store(settings: dict[str, Any]) -> None:
    """Receive a file (`size` bytes with a `sha256`) from standard input into `folder`/`name`, which appears once complete."""
    folder, name, size = settings["folder"], settings["name"], settings["size"]
    os.makedirs(home(folder), exist_ok=True)  # noqa: PTH103
    free = make_room(size, settings["keep"])
    if free < size + SPARE_BYTES:
        greet(error="full", free_bytes=free)
        return
    part, left, digest = home(folder, f"{name}.{os.getpid()}.part"), size, hashlib.sha256()
    try:
        with open(part, "wb") as file:  # noqa: PTH123
            while left and select.select([0], [], [], SILENCE_S)[0]:
                data = os.read(0, min(left, 1 << 20))
                if not data:
                    break
                digest.update(data)
                file.write(data)
                left -= len(data)
            file.flush()
            os.fsync(file.fileno())  # a board that loses its power must not keep the name of an empty file
        if left or digest.hexdigest() != settings["sha256"]:
            greet(error="broken")
            return
        os.replace(part, home(folder, name))  # noqa: PTH105
        greet()
    except OSError as error:
        if error.errno not in FULL:
            raise
        greet(error="full", free_bytes=free_bytes())
    finally:
        with contextlib.suppress(OSError):
            os.unlink(part)  # noqa: PTH108


def fetch(settings: dict[str, Any]) -> None:
    """Send one file of `work` to standard output: the greeting with its `size`, then its bytes."""
    path = os.path.realpath(settings["path"])
    if not path.startswith(os.path.realpath(home("work")) + os.sep):
        raise SystemExit(f"{path} is not in the folder of outputs")
    with open(path, "rb") as file:  # noqa: PTH123
        greet(size=os.fstat(file.fileno()).st_size)
        for block in iter(lambda: file.read(1 << 20), b""):
            write_all(block)


def modules(settings: dict[str, Any]) -> None:
    """Import modules in this process, which may crash, and report their versions or their errors."""
    found: dict[str, Any] = {}
    for name in settings["names"]:
        try:
            module = __import__(name)
            if getattr(module, "__file__", None) is None and name not in sys.builtin_module_names:
                raise ImportError(f"{name} is an empty folder", name=name)  # what is left of a package
            found[name] = {"version": str(getattr(module, "__version__", ""))}
        except Exception as error:
            absent = isinstance(error, ImportError) and getattr(error, "name", None) == name
            found[name] = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".strip(" :"), "absent": absent}
    greet(found=found)


def unpack_wheel(wheel: str, packages: str) -> None:
    """Unpack a wheel into the packages of the virtual environment, in place of another version."""
    import re
    import zipfile

    distribution = os.path.basename(wheel).split("-")[0]  # noqa: PTH119
    plain = re.sub("[-_.]+", "_", distribution).lower()
    for entry in os.listdir(packages):  # noqa: PTH208
        if re.sub("[-_.]+", "_", entry).lower().startswith((f"{plain}_", f"{plain}__")) and entry.endswith(".dist-info"):
            shutil.rmtree(os.path.join(packages, entry))  # noqa: PTH118
    with zipfile.ZipFile(wheel) as archive:
        for top in {name.split("/")[0] for name in archive.namelist() if "/" in name}:
            shutil.rmtree(os.path.join(packages, top), ignore_errors=True)  # noqa: PTH118
        archive.extractall(packages)
    for data in glob.glob(os.path.join(packages, "*.data")):  # noqa: PTH118, PTH207
        for kind in ("purelib", "platlib"):
            inner = os.path.join(data, kind)  # noqa: PTH118
            for entry in os.listdir(inner) if os.path.isdir(inner) else ():  # noqa: PTH112, PTH208
                shutil.move(os.path.join(inner, entry), os.path.join(packages, entry))  # noqa: PTH118
        shutil.rmtree(data, ignore_errors=True)


class Keeper:
    """The board's lock, facts and folder, on behalf of one host.

    Args:
        token: Of the host's search; all its processes on the board have it among their arguments.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        self.locked: int | None = None

    def ping(self) -> dict[str, Any]:
        """Reply, which shows that the board is alive."""
        return {}

    def lock(self, owner: str) -> dict[str, Any]:
        """Take the board's lock; `{"held_by": ...}` names another holder, None on success."""
        if self.locked is not None:
            return {"held_by": None}
        self._end_strays()
        descriptor = self._lock_file()
        import fcntl

        for _ in range(20):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                with contextlib.suppress(ValueError):
                    holder = json.loads(os.pread(descriptor, 4096, 0) or b"{}")
                    if holder.get("token") != self.token:  # an ended process of the same search needs a moment
                        os.close(descriptor)
                        return {"held_by": f"{holder.get('owner', 'another search')} since {holder.get('since', 'a while')}"}
                time.sleep(POLL_S)
        else:
            os.close(descriptor)
            return {"held_by": "a connection of this search that was lost, for a minute at most"}
        self.locked = descriptor
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        with contextlib.suppress(OSError):  # another user's file
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"owner": owner, "since": since, "token": self.token}).encode(), 0)
        shutil.rmtree(home("work"), ignore_errors=True)  # left by a search that died
        for path in glob.glob(home("files", "*.part")):  # noqa: PTH207
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108
        return {"held_by": None}

    def holder(self) -> dict[str, Any]:
        """Return the holder of the lock; None if it is free or held here."""
        if self.locked is not None:
            return {"held_by": None}
        import fcntl

        descriptor = self._lock_file()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder: dict[str, Any] = {}
            with contextlib.suppress(ValueError):
                holder = json.loads(os.pread(descriptor, 4096, 0) or b"{}")
            return {"held_by": f"{holder.get('owner', 'another search')} since {holder.get('since', 'a while')}"}
        finally:
            os.close(descriptor)
        return {"held_by": None}

    def _lock_file(self) -> int:
        path = os.environ.get("ORCHESTRATE_BOARD_LOCK", LOCK)
        for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDWR, os.O_RDONLY):
            # Opened before made: in /tmp the kernel may forbid O_CREAT on another user's file. Reading is enough for a lock.
            try:
                descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            except OSError:
                continue
            if flags & os.O_CREAT:
                os.fchmod(descriptor, 0o666)
            return descriptor
        raise PermissionError(errno.EACCES, "the lock cannot be opened", path)

    def _end_strays(self) -> None:
        """End processes that an earlier connection of the same search has left: a lost network closes no connection."""
        for path in glob.glob("/proc/[0-9]*/cmdline"):  # noqa: PTH207
            number = int(path.split("/")[2])
            if number in (os.getpid(), os.getppid()):
                continue
            arguments = (read_text(path) or "").split("\0")
            if home("agent.py") in arguments and any(self.token in unpack_word(argument) for argument in arguments[-2:]):
                with contextlib.suppress(OSError):
                    os.kill(number, signal.SIGKILL)

    def facts(self) -> dict[str, Any]:
        """Return facts about the machine and its current state."""
        now = state([])
        more = {name: now[name] for name in ("clock_mhz", "temperature_c") if now[name] is not None}
        return {**facts(), **more, "free_disk_bytes": free_bytes(), "folder": home()}

    def modules(self, names: list[str]) -> dict[str, Any]:
        """Return the versions of modules in the virtual environment, or their errors."""
        python = home("venv", "bin", "python")
        command = [python, "-I", os.path.abspath(__file__), "modules", pack({"names": names})]  # noqa: PTH100
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=IMPORT_S, check=False, env=clean_environment()
            )
        except OSError as error:
            return {name: {"error": str(error), "absent": True} for name in names}
        except subprocess.TimeoutExpired:
            return {name: {"error": f"importing takes more than {IMPORT_S:.0f} s", "absent": False} for name in names}
        for line in done.stdout.decode("utf-8", "replace").splitlines():
            if line.startswith(MARKER):
                found: dict[str, Any] = json.loads(line[len(MARKER) :])["found"]
                lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
                for answer in found.values():
                    if lines and answer.get("error") == "ImportError":  # an extension module has said why in its own way
                        answer["error"] += f": {lines[-1].strip()[:300]}"
                return found
        why = ending(done.returncode, done.stderr)["message"]
        return {name: {"error": f"importing fails: {why}", "absent": False} for name in names}

    def present(self, names: list[str]) -> dict[str, Any]:
        """Return the files that are not stored; the others count as used now."""
        missing = []
        for name in names:
            try:
                os.utime(home("files", name))
            except OSError:
                missing.append(name)
        return {"missing": missing}

    def room(self, size: int, keep: list[str]) -> dict[str, Any]:
        """Free space for a number of bytes."""
        return {"free_bytes": make_room(size, keep)}

    def open_folder(self, name: str) -> dict[str, Any]:
        """Create an empty folder for outputs."""
        path = home("work", name)
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path)  # noqa: PTH103
        return {"path": path}

    def close_folder(self, name: str) -> dict[str, Any]:
        """Delete a folder of outputs."""
        shutil.rmtree(home("work", name), ignore_errors=True)
        return {}

    # -- setting up; run by the system's Python ------------------------------------------------------------------------

    def survey(self) -> dict[str, Any]:
        """Return the facts that decide which wheels fit."""
        libc, version = platform.libc_ver()
        if not libc and glob.glob("/lib/ld-musl-*"):  # noqa: PTH207
            libc, version = "musl", "1.2"
        words = 64 if sys.maxsize > 2**32 else 32
        return {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "system": platform.system(),
            "libc": libc,
            "libc_version": version,
            "bits": words,
            "venv": self._venv_works(),
            "asked": json.loads(read_text(home("venv", "orchestrator.json")) or "{}"),
            "free_disk_bytes": free_bytes(),
        }

    def _venv_works(self) -> bool:
        command = [home("venv", "bin", "python"), "-I", "-c", "import sys; print(*sys.version_info[:2])"]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.stdout.decode().split() == [str(part) for part in sys.version_info[:2]]

    def make_venv(self) -> dict[str, Any]:
        """Create an empty virtual environment, without pip."""
        shutil.rmtree(home("venv"), ignore_errors=True)
        command = [sys.executable, "-I", "-m", "venv", "--without-pip", home("venv")]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PIP_S, check=False)
        if done.returncode:
            raise RuntimeError("python3 -m venv: " + ending(done.returncode, done.stderr or done.stdout)["message"])
        return {}

    def download(self, requirements: list[str]) -> dict[str, Any]:
        """Download wheels with the board's own pip; `{"problem": ...}` if it has no pip, no network or no such wheel."""
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--timeout", "10", "--retries", "1", "--dest", home("wheels"), *requirements]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PIP_S, check=False)
        except subprocess.TimeoutExpired:
            return {"problem": "pip takes too long"}
        return {"problem": ending(done.returncode, done.stderr)["message"] if done.returncode else None}

    def clear_wheels(self) -> dict[str, Any]:
        """Delete the wheels of an earlier attempt."""
        shutil.rmtree(home("wheels"), ignore_errors=True)
        return {}

    def unpack(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Install all wheels, and record the requirements."""
        (packages,) = glob.glob(home("venv", "lib", "python*", "site-packages"))  # noqa: PTH207
        wheels = sorted(glob.glob(home("wheels", "*.whl")))  # noqa: PTH207
        for wheel in wheels:
            unpack_wheel(wheel, packages)
        shutil.rmtree(home("wheels"), ignore_errors=True)
        with open(home("venv", "orchestrator.json"), "w") as file:  # noqa: PTH123
            json.dump(asked, file)
        return {"wheels": [os.path.basename(wheel) for wheel in wheels]}  # noqa: PTH119

    def remove(self) -> dict[str, Any]:
        """Delete the folder, this file included."""
        shutil.rmtree(home())
        return {"folder": home()}


def pack(settings: dict[str, Any]) -> str:
    """Encode settings as one word that no shell changes."""
    return base64.urlsafe_b64encode(json.dumps(settings).encode()).decode()


def unpack_word(word: str) -> str:
    """Decode a word of `pack`; empty if it is none."""
    try:
        return base64.urlsafe_b64decode(word).decode()
    except ValueError:
        return ""


def hold(settings: dict[str, Any]) -> None:
    """Answer requests about the board."""
    keeper = Keeper(settings["token"])
    greet(folder=home())
    for line in heard_lines():
        reply(reply_of(keeper, json.loads(line)))


# -- a board: watching one model's process ----------------------------------------------------------------------------


def ending(code: int, errors: bytes, subject: str = "the process") -> dict[str, Any]:
    """Return the failure of a process that ended, with the last line of its standard error."""
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    tail = f": {lines[-1].strip()[:300]}" if lines else ""
    if code == -signal.SIGKILL:
        return {"kind": "out-of-memory", "message": f"{subject} was killed from outside, most likely for its memory{tail}"}
    if code < 0:
        return {"kind": "crash", "message": f"{subject} died of {signal.Signals(-code).name}{tail}"}
    return {"kind": "crash", "message": f"{subject} ended by itself with exit code {code}{tail}"}


def family_of(number: int) -> list[int]:
    """Return a process, its children and theirs, as far as /proc knows them."""
    found = [number]
    for path in glob.glob(f"/proc/{number}/task/*/children"):  # noqa: PTH207
        for child in (read_text(path) or "").split():
            found += family_of(int(child))
    return found


def resident_of(numbers: list[int]) -> int:
    """Return the resident memory of processes in bytes."""
    pages = 0
    for number in numbers:
        words = (read_text(f"/proc/{number}/statm") or "").split()
        pages += int(words[1]) if len(words) > 1 else 0
    return pages * os.sysconf("SC_PAGE_SIZE")


class Guard:
    """A watcher that runs `answer` in a child process, forwards lines, and reports how the child ended.

    Args:
        threads: Value of OMP_NUM_THREADS.
        memory_bytes: The process is killed when its resident memory, its children's included, exceeds this; None: no limit.
    """

    def __init__(self, threads: int, memory_bytes: int | None) -> None:
        self.memory_bytes = memory_bytes
        self.child = subprocess.Popen(
            [sys.executable, "-I", "-u", os.path.abspath(__file__)],  # noqa: PTH100
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**clean_environment(), "OMP_NUM_THREADS": str(threads), "PYTHONHASHSEED": "0"},
            bufsize=0,
            start_new_session=True,
        )
        streams = (self.child.stdin, self.child.stdout, self.child.stderr)
        self.requests, self.replies, self.errors = (stream.fileno() for stream in streams if stream is not None)
        self.sources = [0, self.replies, self.errors]
        self.error_tail = self.partial_line = self.partial_request = b""
        self.failure: dict[str, Any] | None = None
        self.family: list[int] = []
        self.polls = 0

    def watch(self) -> None:
        """Forward and watch until the input ends or is silent for too long."""
        heard = time.monotonic()
        pause = 1.0 if self.memory_bytes is None else POLL_S
        try:
            while time.monotonic() - heard < SILENCE_S:
                ready = select.select(self.sources, [], [], pause)[0]
                if 0 in ready:
                    data = os.read(0, 65536)
                    if not data:
                        return
                    heard = time.monotonic()
                    self._requested(data)
                self._relay(ready)
                if self.failure is None:
                    self._look()
        finally:
            self.kill()

    def kill(self) -> None:
        """End the process and all that it started."""
        with contextlib.suppress(OSError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.kill()
        self.child.wait()

    def _requested(self, data: bytes) -> None:
        whole = (self.partial_request + data).split(b"\n")
        self.partial_request = whole.pop()
        for line in whole:
            if line.strip() and self.failure is not None:
                reply({"error": self.failure})
            elif line.strip():
                with contextlib.suppress(OSError):  # it has ended, which `_look` detects
                    write_all(line + b"\n", self.requests)

    def _relay(self, ready: list[int]) -> None:
        for source in ready:
            if source == 0:
                continue
            data = os.read(source, 65536)
            if not data:
                self.sources.remove(source)
            elif source == self.errors:
                self.error_tail = (self.error_tail + data)[-4096:]
            else:
                whole, line, self.partial_line = (self.partial_line + data).rpartition(b"\n")
                write_all(whole + line)  # complete lines only: a dying process may have written half of one

    def _look(self) -> None:
        if self.memory_bytes is not None:
            if self.polls % POLLS_A_FAMILY == 0:
                self.family = family_of(self.child.pid)
            self.polls += 1
            used = resident_of(self.family)
            if used > self.memory_bytes:
                self.kill()
                limit = f"{self.memory_bytes / 1e6:.0f} MB"
                message = f"took {used / 1e6:.0f} MB of memory, more than the limit of {limit}"
                self._failed({"kind": "out-of-memory", "message": message})
                return
        if self.child.poll() is not None:
            while True:  # its last output
                ready = select.select([source for source in self.sources if source], [], [], 0.1)[0]
                if not ready:
                    break
                self._relay(ready)
            self._failed(ending(self.child.returncode, self.error_tail))

    def _failed(self, failure: dict[str, Any]) -> None:
        self.failure = failure
        reply({"error": failure})


def guard(settings: dict[str, Any]) -> None:
    """Watch one model's process."""
    watching = Guard(settings["threads"], settings["memory_bytes"])
    greet()
    watching.watch()


MODES = {"fetch": fetch, "guard": guard, "hold": hold, "modules": modules, "store": store}

if __name__ == "__main__":
    if len(sys.argv) > 1:
        MODES[sys.argv[1]](json.loads(unpack_word(sys.argv[2])))
    else:
        answer()
