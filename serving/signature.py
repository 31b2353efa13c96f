"""What a model asks of a request, generated from a sample of it, and enforced by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.errors import RefusedError, TooLargeError
from serving.tensors import Array, Columns, Tensor, datatype

_TOLD = 6
"""Names that a message lists, at most."""
_NUMBERS = {"FP64": "fiu", "INT64": "iu", "BYTES": "O", "BOOL": "b"}
"""Kinds of numpy arrays that are taken where a field is of a datatype."""


@dataclass(frozen=True, slots=True)
class Field:
    """One tensor of a request: a row for each window."""

    name: str
    datatype: str
    width: int
    """Columns; 0: it has one dimension alone."""
    parts: tuple[str, ...] = ()
    """What its columns are, in order."""

    @property
    def tensor(self) -> Tensor:
        """As the protocol's metadata has it."""
        return Tensor(self.name, self.datatype, (-1, self.width) if self.width else (-1,))

    def check(self, array: Array) -> Array:
        """The array as this field has it: float64 of shape (n, width), say, or objects of shape (n,).

        Raises:
            RefusedError: it is of another type or width.
        """
        if array.dtype.kind not in _NUMBERS[self.datatype]:
            raise RefusedError(
                f"{self.name}: expected {self.datatype}, and got {datatype(array)} ({array.dtype.name})."
            )
        wanted = (len(array), self.width) if self.width else (len(array),)
        if array.shape != wanted and (self.width or array.shape != (len(array), 1)):
            raise RefusedError(f"{self.name}: expected shape {self._shape}, and got {list(array.shape)}{self._told}.")
        array = array.reshape(wanted)
        return (
            array if array.dtype == object else array.astype({"FP64": "f8", "INT64": "i8", "BOOL": "?"}[self.datatype])
        )

    @property
    def _shape(self) -> str:
        return f"[n, {self.width}]" if self.width else "[n]"

    @property
    def _told(self) -> str:
        return f"; its columns are {listed(self.parts)}" if self.parts else ""


@dataclass(frozen=True, slots=True)
class Signature:
    """The fields of a request, and a sample of it."""

    fields: tuple[Field, ...]
    sample: Columns
    max_rows: int

    @classmethod
    def of(cls, sample: Columns, parts: dict[str, Sequence[str]], max_rows: int) -> "Signature":
        """The signature that a sample keeps; ``parts`` names the columns of its two-dimensional tensors."""
        fields = tuple(
            Field(name, datatype(array), array.shape[1] if array.ndim > 1 else 0, tuple(parts.get(name, ())))
            for name, array in sample.items()
        )
        return cls(fields, sample, max_rows)

    def check(self, columns: Columns) -> Columns:
        """The columns as the fields have them, all with the same rows.

        Raises:
            RefusedError: one is missing, unknown, of another type, width or number of rows.
            TooLargeError: there are too many rows.
        """
        names = [field.name for field in self.fields]
        if missing := [name for name in names if name not in columns]:
            raise RefusedError(f"{listed(missing)}: missing; expected {self}.")
        if extra := [name for name in columns if name not in names]:
            raise RefusedError(f"{listed(extra)}: unknown; expected {self}.")
        found = {field.name: field.check(columns[field.name]) for field in self.fields}
        self.count(found)
        return found

    def count(self, columns: Columns) -> int:
        """How many rows columns have.

        Raises:
            RefusedError: none, or not all the same.
            TooLargeError: too many.
        """
        counts = {name: len(array) for name, array in columns.items()}
        first = next(iter(counts.values()))
        for name, rows in counts.items():
            if rows != first:
                raise RefusedError(f"{name}: expected {first} rows as of {next(iter(counts))}, and got {rows}.")
        if not first:
            raise RefusedError(f"{next(iter(counts))}: expected at least one row, and got none.")
        if first > self.max_rows:
            raise TooLargeError(f"{next(iter(counts))}: expected {self.max_rows} rows at most, and got {first}.")
        return first

    @property
    def data(self) -> Any:
        """The sample as ``data`` of a plain call has it: rows of the one tensor that there is, or columns by name."""
        columns = plain(self.sample)
        return columns if len(columns) > 1 else next(iter(columns.values()))

    def __str__(self) -> str:
        return listed([f"{field.name} {field.datatype} {list(field.tensor.shape)}" for field in self.fields])


def listed(names: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    told = ", ".join(f"{name:.60}" for name in names[:_TOLD])
    return told if len(names) <= _TOLD else f"{told} and {len(names) - _TOLD} more"


def plain(columns: Columns) -> dict[str, Any]:
    """Columns as JSON has them."""
    return {name: blank(array).tolist() for name, array in columns.items()}


def blank(array: Array) -> Array:
    """The array with None for NaN."""
    if array.dtype.kind != "f":
        return array
    found = array.astype(object)
    found[np.isnan(array)] = None
    return found


def short(values: Array) -> Array:
    """Numbers of six digits, to be read by people."""
    return np.array([float(f"{value:.6g}") for value in values.ravel()]).reshape(values.shape)
