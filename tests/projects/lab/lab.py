import json
import os
import time
from pathlib import Path

from orchestrator.plugin import Device, DeviceUnavailable, EnvironmentFailure, JobFailed, hookimpl
from orchestrator_devices.host import HostDevice

FOLDER = Path(os.environ["LAB"])


def say(board, what):
    with (FOLDER / f"{board}.log").open("a") as log:
        log.write(what + "\n")


class Wrapped:
    """A session on this host; each call may find the board gone, as `BOARD.breaks` says: how often to break off at a call."""

    def __init__(self, board, session, job):
        self._board, self._session, self._job = board, session, job

    def __getattr__(self, name):
        return getattr(self._session, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._session.close()

    def time(self, **arguments):
        self._board.lose("time", self._job)
        return self._session.time(**arguments)

    def predict(self, folder, *, batch):
        self._board.lose("predict", self._job)
        say(self._board.name, f"predict {self._job.model.parent.name}")
        if (FOLDER / f"{self._board.name}.full").exists() and self._job.model.parent.name != "baseline":
            raise EnvironmentFailure(f"no space left on lab://{self._board.name}")
        time.sleep(self._board.slow())
        return self._session.predict(folder, batch=batch)


class Lab(Device):
    scheme = "lab"
    remote = True

    def __init__(self, name=""):
        self.name = name

    def attach(self, reference):
        return Lab(reference.rpartition("/")[2])

    def slow(self):
        path = FOLDER / f"{self.name}.slow"
        return float(path.read_text()) if path.is_file() else 0.0

    def lose(self, call, job):
        """`{"call": [how many go well, how many are lost]}` in the file BOARD.breaks; not for the original alone."""
        if (FOLDER / f"{self.name}.gone").exists():
            raise DeviceUnavailable(f"lab://{self.name} does not answer")
        path = FOLDER / f"{self.name}.breaks"
        if job.model.parent.name == "baseline" or not path.is_file():
            return
        plan = json.loads(path.read_text())
        if call in plan:
            well, lost = plan[call]
            plan[call] = [max(0, well - 1), lost - (well <= 0)]
            path.write_text(json.dumps({k: v for k, v in plan.items() if k != call or v[1] > 0}))
            if well <= 0 and lost > 0:
                if plan.get("gone"):
                    (FOLDER / f"{self.name}.gone").touch()
                say(self.name, "lost")
                raise DeviceUnavailable(f"the connection to lab://{self.name} broke")

    def check(self, runtime):
        say(self.name, "check")
        gone = FOLDER / f"{self.name}.gone"
        back = FOLDER / f"{self.name}.back"
        if back.is_file():
            left = int(back.read_text()) - 1
            back.write_text(str(left))
            if left <= 0:
                back.unlink()
                gone.unlink(missing_ok=True)
        if gone.exists():
            raise DeviceUnavailable(f"lab://{self.name} does not answer")

    def release(self):
        say(self.name, "release")

    def open(self, job):
        if (FOLDER / f"{self.name}.gone").exists():
            raise DeviceUnavailable(f"lab://{self.name} does not answer")
        if (FOLDER / f"{self.name}.unfit").exists():
            raise JobFailed("error", "no such operator here")
        return Wrapped(self, HostDevice().open(job), job)

    def environment(self):
        return {"board": self.name}

    def cores(self):
        return 1


@hookimpl
def orchestrator_devices():
    return [Lab()]
