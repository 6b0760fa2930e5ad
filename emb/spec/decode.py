"""One decoder from tables (TOML, options, JSON) to frozen dataclasses. Reports all faults at once, with nearest names.

Knows dataclasses and their annotations; knows nothing of recipes, targets or files' whereabouts.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from emb.errors import SpecError

T = TypeVar("T")
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Fault:
    """key: dotted path of the table entry.  message: what is wrong with it."""

    key: str
    message: str


def read_toml(path: Path) -> dict[str, Any]:
    """The table in a TOML file. Raises SpecError if it cannot be read or is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"cannot read {path}", why=(error.strerror or "").lower(), fix="check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not valid TOML", why=str(error), fix="correct the line that is named") from error


def decode(kind: type[T], table: Mapping[str, Any], *, source: str, text: str = "", found: Iterable[Fault] = ()) -> T:
    """`table` as a `kind`. source: file name for the message.  text: the file's text, to name lines.

    found: faults that the caller knows already, reported together with the decoder's own.
    Raises SpecError that lists all faults of the table.
    """
    faults = list(found)
    value = _decode_table(kind, table, "", faults)
    if faults:
        raise_faults(faults, source=source, text=text)
    return typing.cast(T, value)


def raise_faults(faults: Iterable[Fault], *, source: str, text: str = "") -> typing.NoReturn:
    """Raise the SpecError that lists `faults`, with line numbers where `text` shows the key."""
    listed = list(faults)
    lines = []
    for fault in listed:
        number = _line_of(fault.key, text)
        where = f"line {number}, {fault.key}" if number else fault.key
        lines.append(f"{where}: {fault.message}")
    count = "a fault" if len(listed) == 1 else f"{len(listed)} faults"
    raise SpecError(f"{source} has {count}", why="\n       ".join(lines), fix="correct them and try again")


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, table by table."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        both_tables = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if both_tables and old is not None else value
    return merged


def parse_assignment(text: str) -> dict[str, Any]:
    """`train.epochs=3` as {"train": {"epochs": 3}}. The value is TOML, or else taken as a string."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise SpecError(f"--set {text!r} is not an assignment", fix="write it as --set train.epochs=3")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    table: Any = parsed
    for part in reversed(key.split(".")):
        table = {part: table}
    return typing.cast("dict[str, Any]", table)


def _decode_table(kind: type[Any], table: Mapping[str, Any], prefix: str, faults: list[Fault]) -> object:
    hints = typing.get_type_hints(kind)
    known = {field.name: field for field in dataclasses.fields(kind)}
    for key in table:
        if key not in known:
            faults.append(Fault(prefix + key, _unknown(key, known)))
    values = {}
    sound = True
    for name, field in known.items():
        if name not in table:
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                faults.append(Fault(prefix + name, "is missing"))
                sound = False
            continue
        value = _decode_value(hints[name], table[name], prefix + name, faults)
        if value is _MISSING:
            sound = False
        else:
            values[name] = value
    if not sound:
        return _MISSING
    try:
        return kind(**values)
    except ValueError as error:
        # __post_init__ opens each message with the field's name.
        for text in map(str, error.args):
            field_name, _, message = text.partition(" ")
            key = prefix + field_name if field_name in known else prefix.rstrip(".")
            faults.append(Fault(key, message if field_name in known else text))
        return _MISSING


def _decode_value(hint: Any, value: Any, key: str, faults: list[Fault]) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, Mapping):
            return _decode_table(hint, value, key + ".", faults)
        return _fault(faults, key, f"must be a table, not {_name(value)}")
    if origin is typing.Literal:
        return _decode_literal(typing.get_args(hint), value, key, faults)
    if origin is tuple:
        return _decode_tuple(typing.get_args(hint)[0], value, key, faults)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(typing.get_args(hint), value, key, faults)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            return _fault(faults, key, f"must be a table, not {_name(value)}")
        item = typing.get_args(hint)[1]
        items = {name: _decode_value(item, one, f"{key}.{name}", faults) for name, one in value.items()}
        return _MISSING if _MISSING in items.values() else items
    return _decode_scalar(hint, value, key, faults)


def _decode_scalar(hint: type[Any], value: Any, key: str, faults: list[Fault]) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is hint:
        return value
    wanted = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
    return _fault(faults, key, f"must be {wanted[hint]}, not {_name(value)}")


def _decode_literal(choices: tuple[Any, ...], value: Any, key: str, faults: list[Fault]) -> Any:
    if value in choices:
        return value
    close = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
    offer = f"did you mean {close[0]!r}? " if close else ""
    known = ", ".join(repr(choice) for choice in choices)
    return _fault(faults, key, f"must be one of {known}, not {value!r}" + (f"; {offer.strip()}" if offer else ""))


def _decode_tuple(item: Any, value: Any, key: str, faults: list[Fault]) -> Any:
    if not isinstance(value, list | tuple):
        return _fault(faults, key, f"must be a list, not {_name(value)}")
    items = [_decode_value(item, one, f"{key}[{index}]", faults) for index, one in enumerate(value)]
    return _MISSING if any(one is _MISSING for one in items) else tuple(items)


def _decode_union(members: tuple[Any, ...], value: Any, key: str, faults: list[Fault]) -> Any:
    if value is None and type(None) in members:  # in JSON; TOML has no such value
        return None
    for member in members:
        trial: list[Fault] = []
        decoded = _decode_value(member, value, key, trial) if member is not type(None) else _MISSING
        if not trial and decoded is not _MISSING:
            return decoded
    return _fault(faults, key, f"cannot be {_name(value)}")


def _fault(faults: list[Fault], key: str, message: str) -> object:
    faults.append(Fault(key, message))
    return _MISSING


def _unknown(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, list(known), n=1)
    return f"is unknown; did you mean {close[0]!r}?" if close else f"is unknown; known: {', '.join(known)}"


def _name(value: Any) -> str:
    names = {str: "a string", bool: "true or false", int: "a whole number", float: "a number", list: "a list"}
    if isinstance(value, Mapping):
        return "a table"
    return f"{names.get(type(value), type(value).__name__)} ({value!r})"


def _line_of(key: str, text: str) -> int | None:
    """1-based line on which the dotted key is set, found by its table header and name."""
    plain = re.sub(r"\[\d+\]", "", key)
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[([^\[\]]+)\]", line)
        if header:
            table = header.group(1).strip()
            if table == plain:
                return number
            continue
        entry = re.match(r"\s*([\w.-]+)\s*=", line)
        if entry and ".".join(filter(None, (table, entry.group(1)))) == plain:
            return number
    return None
