"""A child process that replies to requests in its own ways."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time

for line in sys.stdin:
    do = json.loads(line)["do"]
    if do == "echo":
        print(json.dumps({"event": "progress", "what": "thinking", "done": 0.5}), flush=True)
        print(json.dumps({"result": {"said": do}}), flush=True)
    elif do == "raise":
        print(json.dumps({"error": {"kind": "error", "message": "no", "step": "here"}}), flush=True)
    elif do == "segfault":
        ctypes.string_at(0)
    elif do == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif do == "exit":
        sys.exit("the last words")
    elif do == "hang":
        time.sleep(600)
    elif do == "family":
        child = subprocess.Popen(["sleep", "600"])
        print(json.dumps({"result": {"pid": child.pid}}), flush=True)
    elif do == "memory":
        held = []
        while True:
            held.append(bytearray(20_000_000))
            time.sleep(0.005)
