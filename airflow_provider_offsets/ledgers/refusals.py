"""Refusals that several readers of ledgers share."""

from __future__ import annotations

from airflow_provider_offsets.errors import LedgerUnreadable


def library_missing(what: str, extra: str | None, error: Exception) -> LedgerUnreadable:
    """Return the refusal for a library that this Python lacks.

    :param what: what cannot be read without the library.
    :param extra: the extra of this provider that installs the library; None if there is none.
    :param error: the exception, which names the library.
    """
    return LedgerUnreadable(
        seen=f"the library for {what} cannot be loaded: {first_line(error)}",
        expected="that library in the Python that runs the audit",
        do=f"run `pip install 'airflow-provider-offsets[{extra}]'`" if extra else "install the library",
    )


def denied(where: str, error: Exception) -> LedgerUnreadable:
    """Return the refusal for metadata that this user may not read.

    :param where: location of the metadata.
    :param error: the exception.
    """
    return LedgerUnreadable(
        seen=f"{where} may not be read: {first_line(error)}",
        expected="metadata that this user may read",
        do="grant read access to the user that runs Airflow's tasks",
    )


def no_answer(where: str, error: Exception) -> LedgerUnreadable:
    """Return the refusal for an error of a library or server that has no refusal of its own.

    :param where: location of the metadata.
    :param error: the exception.
    """
    return LedgerUnreadable(
        seen=f"{where} cannot be read: {type(error).__name__}: {first_line(error)}",
        expected="an answer from where the sink is",
        do="correct the location of the sink, or start what does not answer, and run the audit again",
    )


def corrupt(where: str, found: str, format_name: str) -> LedgerUnreadable:
    """Return the refusal for metadata whose content cannot be parsed.

    :param where: location of the file.
    :param found: what is wrong with it.
    :param format_name: what was expected instead.
    """
    return LedgerUnreadable(
        seen=f"{where} cannot be parsed: {found}",
        expected=format_name,
        do="restore the file, or correct the location of the sink",
    )


def first_line(error: Exception) -> str:
    """Return the first line of a library's message, without its full stop."""
    return str(error).partition("\n")[0].rstrip(" .")
