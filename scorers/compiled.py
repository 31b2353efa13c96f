"""How loops are compiled: by numba, kept on disk where that can be, without the interpreter lock."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """The same, compiled when it is first called: in a second or two, or in none when it has been before.

    IEEE 754 is kept to the letter (no ``fastmath``), so that a loop gives the bits that Python would.
    """
    try:
        return cast("Function", numba.njit(function, nogil=True, cache=True))
    except RuntimeError:  # there is no folder to keep it in
        return cast("Function", numba.njit(function, nogil=True))
