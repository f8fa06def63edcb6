"""The source of a runtime whose model misbehaves as the text BEHAVIOUR, which a test replaces, names."""


def load(path, threads, options):
    import os
    import signal
    import sys
    import time

    import numpy as np

    behaviour, held = "BEHAVIOUR", []

    def run(inputs):
        if behaviour == "hang":
            time.sleep(600)
        elif behaviour == "segfault":
            print("the last words", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        elif behaviour == "memory":
            while True:
                held.append(bytearray(20_000_000))
                time.sleep(0.005)
        elif behaviour == "chatter":
            print("noise on standard output")
        elif behaviour == "large":
            return [np.zeros((len(inputs["image"]), 200_000), np.float32)]
        return [inputs["image"].mean((1, 2, 3))]

    return run
