"""``python -m airflow_provider_offsets …``: the commands of ``airflow offsets`` on an Airflow that lists none.

Airflow reads the commands of a provider since 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence

from airflow.cli.cli_config import DefaultHelpParser, GroupCommand
from airflow.cli.cli_parser import LazyRichHelpFormatter, _add_command

from airflow_provider_offsets.cli.commands import offsets_commands


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command.

    :param argv: the words of the command, such as ``["plan", "--pipeline", "orders"]``; None for those of the process.
    """
    [group] = offsets_commands()
    assert isinstance(group, GroupCommand), "all commands are below 'offsets'"
    parser = DefaultHelpParser(
        prog="python -m airflow_provider_offsets", description=group.help, formatter_class=LazyRichHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in group.subcommands:
        _add_command(commands, command)
    chosen = parser.parse_args(argv)
    chosen.func(chosen)


if __name__ == "__main__":
    main()
