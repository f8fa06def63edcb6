"""For device plugins: guarded processes, sessions with the agent that runs a model, and the user's interrupt.

The agent is one file (`AGENT`) that needs only Python 3.8, NumPy and the runtime. `AgentSession` implements a whole `Session`
over a `GuardedProcess` that runs it, on this machine or behind any command that passes standard input and output on.
"""

from orchestrator.devices.agent import IMPORT_S, MARKER, PIP_S, cpu_model, ending, facts, pack, usable_cores
from orchestrator.devices.agent_session import AGENT, AgentSession
from orchestrator.devices.interrupt import check as check_interrupt
from orchestrator.devices.process import GuardedProcess

__all__ = [
    "AGENT",
    "IMPORT_S",
    "MARKER",
    "PIP_S",
    "AgentSession",
    "GuardedProcess",
    "check_interrupt",
    "cpu_model",
    "ending",
    "facts",
    "pack",
    "usable_cores",
]
