"""The system's ssh client: addresses of boards, command lines, and the meaning of the client's error messages."""

import os
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import DeviceUnavailable, InputError, OrchestratorError

VARIABLE = "ORCHESTRATE_SSH"
REFUSED = 255
"""The client's exit code if the connection failed or was lost; any other is the remote command's."""
OPTIONS = (
    "BatchMode=yes",  # no questions: the user may be away while a search runs
    "StrictHostKeyChecking=yes",
    "ConnectTimeout=10",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "LogLevel=ERROR",
    "RequestTTY=no",
    "RemoteCommand=none",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "EscapeChar=none",
)
FORM = "ssh://[user@]host[:port]"
_HOST = re.compile(r"[\w.%-]+")
_REFERENCE = re.compile(r"ssh://(?:(?P<user>[^@/]*)@)?(?:\[(?P<six>[^\]@/]*)\]|(?P<host>[^\[\]:@/]*))(?::(?P<port>[^/@:]*))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """The address of a board; what is None comes from the user's ssh configuration.

    Attributes:
        reference: The reference as given.
        host: A name, an alias of the ssh configuration, or an IP address.
    """

    reference: str
    host: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, reference: str) -> "Address":
        """Parse `ssh://[user@]host[:port]`.

        Raises:
            InputError: The reference has another form.
        """
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise InputError(f"device '{reference}' must be {FORM}, an IPv6 address in brackets, and no path behind it")
        user, port = match["user"], match["port"]
        host = match["host"] if match["six"] is None else match["six"]
        if user is not None and ":" in user:
            raise InputError(f"device 'ssh://{user.partition(':')[0]}:...@{host}' must name no password: ssh uses your keys")
        if user is not None and not re.fullmatch(r"[\w.][\w.+$-]*", user):
            raise InputError(f"device '{reference}': '{user}' is not a user name; the form is {FORM}")
        valid = re.fullmatch(r"[0-9a-fA-F:.]+(%[\w.-]+)?", host) if match["six"] is not None else _HOST.fullmatch(host)
        if not valid or host.startswith("-"):
            raise InputError(f"device '{reference}': '{host}' is not a host name; the form is {FORM}")
        if port is not None and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise InputError(f"device '{reference}': the port must be 1 to 65535, but got '{port}'")
        return cls(reference=reference, host=host, user=user, port=None if port is None else int(port))

    @property
    def arguments(self) -> list[str]:
        """The client's arguments for the address."""
        user = [] if self.user is None else ["-l", self.user]
        port = [] if self.port is None else ["-p", str(self.port)]
        return [*user, *port, "--", self.host]

    @property
    def by_hand(self) -> str:
        """The command that connects interactively."""
        port = "" if self.port is None else f"-p {self.port} "
        user = "" if self.user is None else f"{self.user}@"
        return f"ssh {port}{user}{self.host}"

    @property
    def known_as(self) -> str:
        """The host's name in the file of known hosts."""
        return self.host if self.port in (None, 22) else f"[{self.host}]:{self.port}"


def client() -> str | None:
    """Return the path of the ssh client, or None if there is none."""
    words = _client_words()
    return shutil.which(words[0]) if words else None


def _client_words() -> list[str]:
    return shlex.split(os.environ.get(VARIABLE) or "ssh")


def command(address: Address, script: str, *, socket: Path, first: bool) -> list[str]:
    """Return the command line that runs a script in a POSIX shell on the board, whatever the user's login shell is.

    Args:
        address: The board.
        script: One line, without single quotes and exclamation marks, which csh would change.
        socket: Of the connection that all commands share.
        first: True if this command opens that connection, which lasts as long as the command.

    Raises:
        InputError: There is no ssh client.
    """
    words = _client_words()
    if client() is None:
        raise InputError(f"there is no '{''.join(words[:1])}' here: install OpenSSH's client, or let {VARIABLE} name it")
    sharing = ("ControlMaster=yes" if first else "ControlMaster=no", f"ControlPath={socket}", "ControlPersist=no")
    options = [word for option in (*OPTIONS, *sharing) for word in ("-o", option)]
    return [*words, "-T", *options, *address.arguments, f"exec sh -c {shlex.quote(script)}"]


def environment() -> dict[str, str]:
    """Return the client's environment: messages in English, to be parsed here, and no window that asks for a passphrase."""
    return {**os.environ, "LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"}


def error_of(address: Address, output: str) -> OrchestratorError:
    """Return the error for the client's output, after exit code 255.

    Returns:
        An InputError if waiting does not help, else a DeviceUnavailable.
    """
    name = address.reference
    lines = [line.strip() for line in output.splitlines() if line.strip(" @\r\n")]
    last = lines[-1] if lines else "the connection ended"
    if "HOST IDENTIFICATION HAS CHANGED" in output:
        return InputError(
            f"board {name}: its host key has changed: if the board was reinstalled, run "
            f"`ssh-keygen -R '{address.known_as}'` and connect once with `{address.by_hand}` to accept the new key"
        )
    if "ost key verification failed" in output or "host key is known for" in output:
        return InputError(f"board {name}: its host key is not known yet: connect once with `{address.by_hand}` to accept it")
    for words in ("Permission denied", "Too many authentication failures"):
        if words in output:
            line = next(line for line in reversed(lines) if words in line)
            return InputError(
                f"board {name} refuses the login without a password: {line}; check the user, and copy your key there "
                f"with `ssh-copy-id` or load it with `ssh-add`"
            )
    if "Could not resolve hostname" in output and "Temporary failure" not in output:
        return InputError(f"board {name}: there is no host named '{address.host}'; check the name, or give its IP address")
    for words in ("Bad configuration option", "terminating, ", "Can't open user config", "no such identity", "Bad owner"):
        if words in output:
            return InputError(f"board {name}: the ssh client cannot be used as it is configured: {last}")
    return DeviceUnavailable(f"board {name} cannot be reached: {last}")
