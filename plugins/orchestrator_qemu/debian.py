"""Packages of this machine's Debian or Ubuntu release, for any architecture, without root and without changes to its apt.

apt works in a folder of its own: with this machine's sources and keys, but lists and a cache that go with the folder, and an
empty list of what is installed. Packages are unpacked, never installed: their scripts do not run.
"""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from orchestrator.errors import EnvironmentFailure

TOOLS = ("apt-get", "apt-cache", "dpkg-deb", "dpkg")
APT_S = 1800.0
OS_RELEASE = Path("/etc/os-release")


def release() -> tuple[str, str]:
    """Return this machine's distribution and release ("debian", "12").

    Raises:
        EnvironmentFailure: it is neither Debian nor Ubuntu (nor a child of theirs), or apt is missing.
    """
    try:
        lines = OS_RELEASE.read_text().splitlines()
    except OSError:
        lines = []
    said = {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}
    names = [said.get("ID", ""), *said.get("ID_LIKE", "").split()]
    family = next((name for name in names if name in ("debian", "ubuntu")), None)
    if family is None:
        system = said.get("PRETTY_NAME") or os.uname().sysname
        raise EnvironmentFailure(f"simulated execution is set up from the packages of Debian or Ubuntu, but this is {system}")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise EnvironmentFailure(f"simulated execution is set up with apt and dpkg, but {', '.join(missing)} is not installed")
    return said["ID"], said.get("VERSION_ID", said.get("VERSION_CODENAME", "unstable"))


def architecture() -> str:
    """Return dpkg's name of this machine's architecture ("amd64")."""
    return _run(["dpkg", "--print-architecture"]).strip()


class Apt:
    """A private apt in one folder, for one architecture.

    Args:
        folder: Where its lists and packages go.
        architecture: dpkg's name for it.
    """

    def __init__(self, folder: Path, architecture: str) -> None:
        self._folder, self._architecture = folder, architecture
        for name in ("lists/partial", "cache/archives/partial", "packages"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        settings = {
            "Dir::State::Lists": folder / "lists",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": folder / "cache",
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Sandbox::User": "",  # root's apt would hand downloads to a user who may not write here
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
        }
        self._options = [f"-o{key}={value}" for key, value in settings.items()]

    def update(self) -> None:
        """Fetch the lists of packages.

        Raises:
            EnvironmentFailure: the network is not there, or no source has this architecture.
        """
        sources = self._ports_of_ubuntu()
        if sources is not None:
            self._options += [f"-oDir::Etc::SourceList={sources}", "-oDir::Etc::SourceParts=/dev/null"]
        _run(["apt-get", *self._options, "--quiet", "update"])
        if not self.versions(["libc6"]):
            raise EnvironmentFailure(
                f"this machine's package sources cannot be reached, or have no packages for {self._architecture}: "
                "see to the network and to /etc/apt"
            )

    def versions(self, names: Iterable[str]) -> dict[str, str]:
        """Return the available version of each package; packages that do not exist are left out."""
        found: dict[str, str] = {}
        for record in _run(["apt-cache", *self._options, "show", "--no-all-versions", *names], fails=True).split("\n\n"):
            keys = dict(re.findall(r"^(Package|Version|Architecture): (.+)$", record, re.MULTILINE))
            if keys.get("Architecture") in (self._architecture, "all"):
                found[keys["Package"]] = keys["Version"]
        return found

    def closure(self, names: Sequence[str]) -> list[str]:
        """Return these packages and all their dependencies."""
        options = [f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")]
        said = _run(["apt-cache", *self._options, "depends", "--recurse", *options, *names])
        return sorted({line for line in said.splitlines() if re.fullmatch(r"[a-z0-9][a-z0-9.+-]+", line)})

    def unpack(self, names: Sequence[str], into: Path) -> dict[str, str]:
        """Download and unpack packages, and return their versions.

        Raises:
            EnvironmentFailure: one cannot be downloaded, or the disk is full.
        """
        folder = self._folder / "packages"
        _run(["apt-get", *self._options, "--quiet", "download", *names], cwd=folder)
        into.mkdir(parents=True, exist_ok=True)
        versions = {}
        for package in sorted(folder.glob("*.deb")):
            name, version = _run(["dpkg-deb", "--field", str(package), "Package", "Version"]).split("\n")[:2]
            versions[name.partition(": ")[2]] = version.partition(": ")[2]
            _run(["dpkg-deb", "--extract", str(package), str(into)])
            package.unlink()
        return versions

    def _ports_of_ubuntu(self) -> Path | None:
        """Write the sources of Ubuntu's `ports` host, which has the packages of other architectures; None if not needed."""
        if release()[0] != "ubuntu" or self._architecture in ("amd64", "i386") or architecture() == self._architecture:
            return None
        said = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
        lines = []
        for path in said:
            if path.suffix not in (".list", ".sources"):
                continue
            with contextlib.suppress(OSError):
                lines += one_line_sources(path.read_text(), deb822=path.suffix == ".sources")
        sources = self._folder / "sources.list"
        sources.write_text("".join(f"{line}\n" for line in on_ports(lines)))
        return sources


def on_ports(lines: Iterable[str]) -> list[str]:
    """Return the sources of Ubuntu's main hosts, on its host for other architectures; others are left out."""
    archive = re.compile(r"//(?:[\w-]+\.)*?(?:archive|security)\.([\w.-]+)/ubuntu\b")
    return [archive.sub(r"//ports.\1/ubuntu-ports", line) for line in lines if archive.search(line)]


def one_line_sources(text: str, *, deb822: bool) -> list[str]:
    """Return the sources of an apt file in the form `deb [options] address suite components`."""
    if not deb822:
        return [line for line in text.splitlines() if line.startswith("deb ")]
    found = []
    for record in re.split(r"\n\s*\n", text):
        keys = {key.lower(): value.strip() for key, value in re.findall(r"^([\w-]+):(.*)$", record, re.MULTILINE)}
        if "deb" in keys.get("types", "").split() and keys.get("enabled", "yes") != "no":
            options = f"[signed-by={keys['signed-by']}] " if keys.get("signed-by", "").startswith("/") else ""
            found += [
                f"deb {options}{address} {suite} {keys.get('components', '')}"
                for address in keys.get("uris", "").split()
                for suite in keys.get("suites", "").split()
            ]
    return found


def _run(command: Sequence[str], *, cwd: Path | None = None, fails: bool = False) -> str:
    """Run a command, and return its output.

    Raises:
        EnvironmentFailure: it fails (unless that is fine); its own first complaint.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=APT_S,
            check=False,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFailure(f"{command[0]} does not work: {error}") from None
    if done.returncode != 0 and not fails:
        lines = [line.strip() for line in done.stderr.splitlines() if line.startswith(("E:", "Err", "dpkg"))]
        told = (lines or done.stderr.splitlines() or ["no message"])[0]
        raise EnvironmentFailure(f"{command[0]} failed: {told.removeprefix('E: ')[:300]}")
    return done.stdout
