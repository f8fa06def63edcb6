"""A process that holds a board until it is killed: `holder.py REFERENCE`."""

import sys
import time

from orchestrator.plugin.registry import Registry
from orchestrator_devices.ssh import SshDevice

if __name__ == "__main__":
    device = SshDevice().attach(sys.argv[1])
    device.check(Registry.discover().runtimes()["onnxruntime"])
    guard = device.board.guard(threads=1, memory_bytes=None)
    print("ready", flush=True)
    time.sleep(600)
