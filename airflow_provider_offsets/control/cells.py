"""How a cell of the control table is read: JSON of one type, or an error that names the cell."""

from __future__ import annotations

from typing import TypeVar

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.errors import StoreDataError

T = TypeVar("T")


def load_cell(kind: type[T], pipeline: str, name: str, text: str | None) -> T:
    """Return the value of a control cell.

    :param kind: type of the value.
    :param pipeline: name of the pipeline that the cell belongs to.
    :param name: name of the cell.
    :param text: the stored text; None if the cell is missing although another cell refers to it.
    :raises StoreDataError: the cell is missing, or its text is not the JSON of that type.
    """
    try:
        return codec.loads(kind, text or "null")
    except ValueError as error:
        held = "is missing" if text is None else f"holds {text[:80]!r}: {error}"
        raise StoreDataError(
            seen=f"control cell {name!r} of pipeline {pipeline!r} {held}",
            expected=f"the JSON of {kind.__name__}",
            do="find out who else writes to the control table, which only this provider may write",
        ) from error
