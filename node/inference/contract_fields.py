"""Fields of a contract's JSON, taken one by one; each refusal names its field."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

from node.errors import ContractError

T = TypeVar("T")


def refusal(field: str, what: str) -> ContractError:
    """The error that names a field and what is wrong with it."""
    return ContractError(f"contract: {field}: {what}")


class Fields:
    """A JSON object whose keys are taken one by one, and of which nothing may be left over."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise refusal(path or "document", "must be an object")
        self._left, self._path = dict(value), path

    def take(self, key: str, read: Callable[[Any, str], T]) -> T:
        """The value of `key`, read by `read`. Raises ContractError where it is missing."""
        path = f"{self._path}.{key}".lstrip(".")
        if key not in self._left:
            raise refusal(path, "is missing")
        return read(self._left.pop(key), path)

    def finish(self) -> None:
        """Raises ContractError where a key was not taken."""
        for key in self._left:
            raise refusal(f"{self._path}.{key}".lstrip("."), "is unknown")


def text(value: Any, path: str) -> str:
    """Raises ContractError, as all that follow."""
    if not isinstance(value, str):
        raise refusal(path, "must be a string")
    return value


def optional_text(value: Any, path: str) -> str | None:
    """A text, or None for null."""
    return None if value is None else text(value, path)


def flag(value: Any, path: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise refusal(path, "must be true or false")
    return value


def integer(value: Any, path: str) -> int:
    """A whole number."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise refusal(path, "must be an integer")
    return value


def number(value: Any, path: str) -> float:
    """A finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise refusal(path, "must be a finite number")
    return float(value)


def texts(value: Any, path: str) -> tuple[str, ...]:
    """A list of texts."""
    if not isinstance(value, list):
        raise refusal(path, "must be a list of strings")
    return tuple(text(item, path) for item in value)


def integer_pair(value: Any, path: str) -> tuple[int, int]:
    """(y, x)."""
    first, second = _pair(value, path)
    return integer(first, path), integer(second, path)


def number_pair(value: Any, path: str) -> tuple[float, float]:
    """(y, x)."""
    first, second = _pair(value, path)
    return number(first, path), number(second, path)


def _pair(value: Any, path: str) -> tuple[Any, Any]:
    if not isinstance(value, list) or len(value) != 2:
        raise refusal(path, "must be a list of two numbers (y, x)")
    return value[0], value[1]


def members(value: Any, path: str) -> list[tuple[str, Fields]]:
    """The members of an object of objects, by name."""
    if not isinstance(value, dict):
        raise refusal(path, "must be an object")
    return [(name, Fields(member, f"{path}.{name}")) for name, member in value.items()]
