"""What the host knows of a file: who has it open, who locks it, on which file system it is.

All of it is read from ``/proc``, as Linux has it; nothing is opened but that. Elsewhere, and
where it may not be read, the answer is that it is unknown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "FileSystem",
    "Holder",
    "Holders",
    "Locking",
    "file_system",
    "find_file_system",
    "holders",
    "locking",
]

_PROC = Path("/proc")

_LOCAL = re.compile(
    r"apfs|bcachefs|btrfs|erofs|exfat|ext[234]|f2fs|fuseblk|hfsplus|iso9660|jfs|msdos|nilfs2|"
    r"ntfs3?|overlay|ramfs|reiserfs|squashfs|tmpfs|udf|vfat|xfs|zfs"
)
_NETWORK = re.compile(
    r"9p|acfs|afs|beegfs(_nodev)?|ceph|cifs|coda|cvfs|davfs|dvs|fhgfs|gfs2?|glusterfs|gpfs|ibrix|"
    r"lustre|mmfs|ncpfs|nfs4?|ocfs2|openafs|orangefs|panfs|prl_fs|pvfs2|smb[23]|smbfs|snfs|"
    r"vboxsf|virtiofs|vmhgfs|wekafs"
)
# Behind "fuse." stands the name that the program gave itself.
_NETWORK_FUSE = re.compile(
    r"sshfs|ceph|gluster|eos|cvmfs|xrootd|nfs|smb|s3|gcs|goofys|rclone|curlftp|dav|moose|mfs|"
    r"juicefs|beegfs|hdfs|lizard|afp|vmhgfs|onedata|blobfuse|gpfs|dcache"
)


class Holder(NamedTuple):
    """A process that has a file open, or has locked it."""

    pid: int
    command: str
    #: Whether it has it open for writing; None where that may not be seen.
    writes: bool | None
    #: The lock that it holds for others to meet: ``"shared"``, ``"exclusive"`` or None.
    lock: str | None


class Holders(NamedTuple):
    """The processes of this host that have a file."""

    found: list[Holder]
    #: Processes of other users, whose files may not be seen; None where none may, or can.
    hidden: int | None


class FileSystem(NamedTuple):
    """The file system that a file is on."""

    #: As Linux names it, such as ``nfs4``; ``"unknown"`` if that cannot be found out.
    kind: str
    #: The folder where it is mounted.
    mount: str | None
    #: ``"local"``, ``"network"`` or ``"unknown"``; the last counts as remote.
    reach: str

    @property
    def remote(self) -> bool:
        """Whether other hosts may write there, which this one would not see."""
        return self.reach != "local"


class Locking(NamedTuple):
    """What ``HDF5_USE_FILE_LOCKING`` makes of the programs that are started with it."""

    value: str | None
    #: Whether h5py locks a file that it opens as by default.
    by_default: bool
    #: Whether it does also where a program says ``locking=False``.
    always: bool
    #: Whether HDF5 does not know the value, and ignores it.
    ignored: bool


def locking(environment: Mapping[str, str]) -> Locking:
    """Tell what ``HDF5_USE_FILE_LOCKING`` does; HDF5 looks at it when it is loaded.

    Parameters
    ----------
    environment
        The environment of a process.

    Returns
    -------
    Locking
        What it does with HDF5 1.14 and 2.0.

    Examples
    --------
    >>> locking({"HDF5_USE_FILE_LOCKING": "BEST_EFFORT"}).always
    True
    >>> locking({"HDF5_USE_FILE_LOCKING": "false"})
    Locking(value='false', by_default=True, always=False, ignored=True)
    """
    value = environment.get("HDF5_USE_FILE_LOCKING")
    off, on = value in ("FALSE", "0"), value in ("TRUE", "1", "BEST_EFFORT")
    return Locking(value, not off, on, value is not None and not off and not on)


# ------------------------------------------------------------------------ who has it


def holders(path: Path) -> Holders:
    """Find the processes of this host that have a file open, without this one.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    Holders
        By process number. Those of other containers and other hosts are not among them.

    Examples
    --------
    >>> import tempfile
    >>> holders(Path(tempfile.mkdtemp())).found
    []
    """
    try:
        path = path.resolve()
        status = path.stat()
        processes = sorted(int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
    except (OSError, RuntimeError):
        return Holders([], None)
    # A second name of the same file, and only that, has to be looked for by its number.
    name = f"/{path.name}" if status.st_nlink == 1 else ""
    found: dict[int, Holder] = {}
    hidden = 0
    for pid in processes:
        if pid == os.getpid():
            continue
        try:
            entries = list((_PROC / str(pid) / "fd").iterdir())
        except PermissionError:
            hidden += 1
            continue
        except OSError:  # it has ended meanwhile
            continue
        for entry in entries:
            if _is_file(entry, name, status):
                _add(found, _holder(pid, entry.name))
    for pid, kind in _locks(status):
        # Of what is hidden, at least the locks are seen.
        if pid > 0 and pid != os.getpid() and pid not in found:
            found[pid] = Holder(pid, _command(pid), None, kind)
    return Holders([found[pid] for pid in sorted(found)], hidden)


def _is_file(entry: Path, name: str, status: os.stat_result) -> bool:
    try:
        target = str(entry.readlink())
        # By name at first: to ask for the status of a file on a dead server takes for ever.
        if not target.startswith("/") or not target.endswith(name):
            return False
        now = entry.stat()
    except OSError:
        return False
    return (now.st_dev, now.st_ino) == (status.st_dev, status.st_ino)


def _holder(pid: int, descriptor: str) -> Holder:
    writes: bool | None = None
    lock = None
    for line in _text(_PROC / str(pid) / "fdinfo" / descriptor).splitlines():
        word, _, rest = line.partition(":")
        if word == "flags":
            writes = int(rest, 8) & os.O_ACCMODE != os.O_RDONLY
        elif word == "lock":
            seen = _lock(rest)
            lock = lock if seen is None else _stronger(lock, seen[1])
    return Holder(pid, _command(pid), writes, lock)


def _add(found: dict[int, Holder], new: Holder) -> None:
    old = found.get(new.pid)
    if old is not None:
        writes = old.writes or new.writes
        new = new._replace(writes=writes, lock=_stronger(old.lock, new.lock))
    found[new.pid] = new


def _stronger(one: str | None, other: str | None) -> str | None:
    return min(one, other) if one and other else one or other


def _locks(status: os.stat_result) -> list[tuple[int, str]]:
    """Return the locks on a file that other programs meet: who holds each, and of which kind."""
    where = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    lines = _text(_PROC / "locks").splitlines()
    seen = [_lock(line) for line in lines if where in line.split()]
    return [lock for lock in seen if lock is not None]


def _lock(line: str) -> tuple[int, str] | None:
    """Read a line of ``/proc/locks``; None for one that waits, and for a RawWriter's mark."""
    words = line.split()
    if len(words) < 5 or words[1] not in ("FLOCK", "POSIX"):
        return None
    return int(words[4]), "exclusive" if words[3] == "WRITE" else "shared"


def _command(pid: int) -> str:
    """Return the name of a process; of an interpreter also what it was called with."""
    words = _text(_PROC / str(pid) / "cmdline").split("\0")
    name = Path(words[0]).name or _text(_PROC / str(pid) / "comm").strip() or "unknown"
    said = " ".join([name, *words[1:]]) if name.startswith("python") else name
    said = "".join(letter if letter.isprintable() else "?" for letter in said).strip()
    return said if len(said) <= 60 else f"{said[:57]}..."


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


# ------------------------------------------------------------------------ where it is


def file_system(path: Path) -> FileSystem:
    """Find the file system of a file, or of the folder where it would be.

    Examples
    --------
    >>> file_system(Path("/proc/self")).mount
    '/proc'
    """
    try:
        path = path.resolve()
    except (OSError, RuntimeError):
        return FileSystem("unknown", None, "unknown")
    return find_file_system(path, _text(_PROC / "self" / "mountinfo").splitlines())


def find_file_system(path: Path, mounts: Iterable[str]) -> FileSystem:
    """Find the file system of a file in a list of mounts.

    Parameters
    ----------
    path
        The file, absolute and without symbolic links.
    mounts
        Lines of ``/proc/self/mountinfo``; see proc(5).

    Returns
    -------
    FileSystem
        That of the longest matching mount; of two in one place, the later hides the other.

    Examples
    --------
    >>> line = "36 25 0:40 / /data rw - nfs4 server:/export rw"
    >>> find_file_system(Path("/data/raw.h5"), [line])
    FileSystem(kind='nfs4', mount='/data', reach='network')
    """
    kind, mount = "unknown", None
    for line in mounts:
        own, dash, other = line.partition(" - ")
        words = own.split(" ")
        if not dash or len(words) < 5:
            continue
        # Spaces, tabs, line ends and backslashes are written as three octal digits.
        place = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), words[4])
        if path.is_relative_to(place) and (mount is None or len(place) >= len(mount)):
            kind, mount = other.split(" ")[0], place
    return FileSystem(kind, mount, _reach(kind))


def _reach(kind: str) -> str:
    if _LOCAL.fullmatch(kind):
        return "local"
    name, _, program = kind.partition(".")
    network = _NETWORK.fullmatch(kind) or (name == "fuse" and _NETWORK_FUSE.search(program))
    return "network" if network else "unknown"
