"""Command line: ``python -m airflow_provider_offsets.stores create URL``."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
from collections.abc import Sequence

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.errors import OffsetsError
from airflow_provider_offsets.stores import open_store

_EPILOG = """\
URL is one of
  sqlite:////absolute/path.db
  postgresql://user:password@host:5432/database   (or no password, and PGPASSWORD or ~/.pgpass)
  hbase://thrift-host:9090/table                  (also makes table_batches and table_control)

examples:
  python -m airflow_provider_offsets.stores create sqlite:////var/lib/offsets/offsets.db
  python -m airflow_provider_offsets.stores show hbase://localhost:9090/stream_kafka_offsets \\
      --group-id flights --topic flights
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and return the exit code."""
    arguments = command_parser().parse_args(argv)
    try:
        with contextlib.closing(open_store(arguments.url)) as store:
            if arguments.command == "create":
                store.create()
                print("The store exists.")
                return 0
            stream = Stream(arguments.group_id, tuple(arguments.topic))
            for batch in itertools.islice(store.newest_first(stream), arguments.limit):
                identity = f"batch {batch.batch_id} of {batch.query_id}, epoch {batch.epoch}"
                known = identity if batch.batch_id is not None else "written by a job without this provider"
                print(f"{batch.row_time_ms}  {batch.end.to_json()}  {known}")
            return 0
    except OffsetsError as error:
        print(error, file=sys.stderr)
        return 1


def command_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_offsets.stores",
        description="Create an offset store, or show its newest batches.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    create = commands.add_parser("create", help="create the missing parts of the store; safe to repeat")
    create.add_argument("url", metavar="URL", help="the store; --help without a command lists the forms")
    show = commands.add_parser("show", help="show the newest batches; nothing is changed")
    show.add_argument("url", metavar="URL", help="the store")
    show.add_argument("--group-id", required=True, help="consumer group id of the history")
    show.add_argument("--topic", required=True, action="append", help="topic of the history; repeatable")
    show.add_argument("--limit", type=int, default=10, help="number of batches (default: 10)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
