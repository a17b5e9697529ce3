"""A text file as Python values: JSON or YAML, told apart by its text, and read safely.

No code of the file's choice is run, nothing is read twice under one key, and no text can end
the process: libyaml's own composer recurses in C, and is given no deep nesting.
"""

from __future__ import annotations

import json
import os
import reprlib
import stat
from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from streamer.errors import StreamError
from writer.superblock import SIGNATURE

if TYPE_CHECKING:
    from yaml import SafeLoader as _Loader
else:
    # The one in C is five times as fast; PyYAML can be built without it.
    _Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

__all__ = ["read_document"]

# The biggest layout known, 409,600 pixels one by one in JSON, has 20 MB.
_MOST_BYTES: Final = 256 << 20
# A position of a pixel is the deepest: three.
_DEEPEST: Final = 16


def read_document(
    path: str | os.PathLike[str], *, kind: str, error: type[StreamError]
) -> dict[Hashable, Any]:
    """Return the mapping that a text file of JSON or YAML holds.

    Parameters
    ----------
    path
        The file. Its text is JSON if it begins with ``{``, else YAML.
    kind
        What it should be, for the errors: ``"geometry file"``.
    error
        The class of the errors.

    Returns
    -------
    dict
        Of plain Python values.

    Raises
    ------
    StreamError
        Of the class `error`, if there is no such file, or it is not a text, neither JSON nor
        YAML, has a key twice, or holds something else than a mapping.

    Examples
    --------
    >>> from streamer.errors import GeometryError
    >>> _ = Path("tile.yaml").write_text("pixel_pitch: 4.434")
    >>> read_document("tile.yaml", kind="geometry file", error=GeometryError)
    {'pixel_pitch': 4.434}
    """
    try:
        return _read(Path(path), kind)
    except _Unusable as reason:
        msg = f"{os.fspath(path)}: {reason}"
        raise error(msg) from reason.__cause__


class _Unusable(Exception):
    """Why a file cannot be used; its cause is what was raised first."""


def _read(path: Path, kind: str) -> dict[Hashable, Any]:
    text = _text(path, kind)
    read = _json if text.lstrip().startswith("{") else _yaml
    try:
        values = read(text)
    # ValueError: of PyYAML too, for a date that there is not or a number of too many digits.
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        language = "JSON" if read is _json else "YAML"
        msg = f"not {language}: {_reason(error)}; take another copy of the file, or mend it"
        raise _Unusable(msg) from error
    if not isinstance(values, dict):
        held = "nothing" if values is None else f"a {type(values).__name__}"
        msg = f"holds {held}, not keys with values; a {kind} is expected"
        raise _Unusable(msg)
    return values


def _text(path: Path, kind: str) -> str:
    """Return the text of a file."""
    wanted = f"give a {kind}, YAML or JSON"
    try:
        found = path.stat()
        # A pipe would be waited for, and a device has no end.
        if not stat.S_ISREG(found.st_mode):
            what = "a folder" if stat.S_ISDIR(found.st_mode) else "no ordinary file"
            msg = f"{what}; {wanted}"
            raise _Unusable(msg)
        with path.open("rb") as file:
            data = file.read(len(SIGNATURE))
            if data == SIGNATURE:
                msg = f"an HDF5 file; {wanted}"
                raise _Unusable(msg)
            if found.st_size > _MOST_BYTES:
                msg = f"{found.st_size:,} bytes are too many for a {kind}"
                raise _Unusable(msg)
            data += file.read(_MOST_BYTES)
    except OSError as error:
        msg = f"the {kind} cannot be read: {error.strerror}"
        raise _Unusable(msg) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{_no_text(data, error)}; {wanted}"
        raise _Unusable(msg) from error
    if not text.strip():
        msg = f"empty; {wanted}"
        raise _Unusable(msg)
    return text


def _no_text(data: bytes, error: UnicodeDecodeError) -> str:
    if data.startswith(b"\x1f\x8b"):
        return "compressed with gzip, unpack it first"
    return f"not a text in UTF-8 (byte {error.start})"


def _reason(error: Exception) -> str:
    """Return what is wrong with a text, in one line."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{error.problem}, line {mark.line + 1}, column {mark.column + 1}"
    return " ".join(str(error).split())


def _json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[Hashable, Any]]) -> dict[Hashable, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        # Both JSON and YAML would silently drop the first value.
        msg = f"the key {reprlib.repr(key)} is there twice; keep the one that is right"
        raise _Unusable(msg)
    return found


def _yaml(text: str) -> Any:
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                raise RecursionError
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return yaml.load(text, _UniqueLoader)


class _UniqueLoader(_Loader):
    """The safe loader, which builds plain values only, and does not drop values."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        found: dict[Hashable, Any] = super().construct_mapping(node, deep)
        if len(found) != len(node.value):
            _unique([(self.construct_object(key), None) for key, _ in node.value])
        return found
