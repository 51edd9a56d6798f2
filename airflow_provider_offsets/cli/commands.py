"""Command definitions for Airflow's own parser. Airflow imports this module at every start, so it imports little."""

from __future__ import annotations

from airflow.cli.cli_config import ARG_VERBOSE, ActionCommand, Arg, CLICommand, GroupCommand, lazy_load_command

_STORES = """\
A store is named by
  <conn id>               a connection of type offsets, or of type kafka (the committed offsets of the group)
  kafka:<conn id>         the same, said in full
  checkpoint:<folder>     the log of a Structured Streaming checkpoint; writing to it seeds one
  hbase://host:9090/table, sqlite:////file.db, zookeeper://host:2181, …   a URL without a password
"""
_EXIT = "Ends with 0 if all is well, 1 if stores contradict each other or the store refused, 2 if the call is wrong."
_DRY = "Shows what would be written, and writes it only with --apply: as a whole, and only over what was shown."

_PIPELINE = Arg(("-p", "--pipeline"), help="the pipeline, by its name in pipelines.yaml", required=True)
_OF_PIPELINE = Arg(
    ("-p", "--pipeline"),
    help="take group and topics from this pipeline, check the offsets against its cluster, and refuse while it runs",
)
_FILE = Arg(("-f", "--file"), help="the pipelines.yaml (default: the one in Airflow's dags folder)")
_FROM = Arg(("--from",), dest="source", metavar="STORE", help="the store to read", required=True)
_TO = Arg(("--to",), dest="target", metavar="STORE", help="the store to write", required=True)
_GROUP = Arg(("-g", "--group"), help="the group id (default: that of the pipeline)")
_GROUPS = Arg(("-g", "--group"), action="append", help="the group id; repeat it for several", dest="groups")
_TO_GROUP = Arg(("--to-group",), help="write under another group id")
_TOPICS = Arg(("-t", "--topics"), help="comma-separated (default: those of the pipeline)")
_KAFKA = Arg(("--kafka-conn-id",), help="check the offsets against this cluster (default: that of the pipeline)")
_APPLY = Arg(("--apply",), action="store_true", help="write; without it nothing is changed")
_ACCEPT = Arg(
    ("--accept-skipped",),
    metavar="TOPIC=COUNT",
    action="append",
    help="let the target go forward by so many offsets of this topic; repeat it for several",
)
_START = Arg(("-s", "--start"), help="where to start, as in 'committed' or 'shift:-1000' (default: the pipeline's own)")
_WINDOW = Arg(
    ("--window-s",),
    metavar="SECONDS",
    help="how long the job is to stay stopped; longer than Kafka keeps what is unread is a problem",
)
_LOSE = Arg(
    ("--accept-lost",), metavar="TOPIC=COUNT", action="append", help="so many offsets of this topic may be lost"
)
_SKIP = Arg(
    ("--accept-skipped",), metavar="TOPIC=COUNT", action="append", help="so many offsets of this topic may be skipped"
)
_BOUND = "a time with its zone (2026-11-01T00:00Z), batch:<id> or epoch:<number>"
_SINCE = Arg(("--since",), metavar="WHEN", help=f"the first that is told of: {_BOUND}")
_UNTIL = Arg(("--until",), metavar="WHEN", help=f"the last that is told of: {_BOUND}")
_SHAPE = Arg(("-o", "--output"), choices=("table", "plain", "json", "yaml"), default="table", help="default: table")
_TEXT = Arg(("-o", "--output"), choices=("csv", "json"), default="csv", help="default: csv, as Kafka's own tool has it")
_LABEL = Arg(("-l", "--label"), help="a name for it, as in 'snapshot:<label>'; it stays until somebody removes it")
_REASON = Arg(("-r", "--reason"), help="why; kept with it")
_SNAPSHOTS = Arg(
    ("--snapshot",),
    dest="snapshots",
    metavar="ID",
    action="append",
    help="remove this one too, by its id or label, whatever keeps it; repeat it for several",
)
_REMOVE = Arg(("--apply",), action="store_true", help="remove; without it nothing is changed")
_TAKE_OVER = Arg(
    ("--take-over",),
    action="store_true",
    help="take the pipeline over from an operation that acted lately; that one's next act is refused",
)
_OLD = Arg(("old",), metavar="OLD", help="the name that the pipeline had when it ran last")
_NEW = Arg(("pipeline",), metavar="NEW", help="its new name, in pipelines.yaml")
_RENAME = Arg(("--apply",), action="store_true", help="rename; without it nothing is changed")
_INPUT = Arg(
    ("input",), metavar="FILE", help="a file that 'export' or 'kafka-consumer-groups --export' wrote; - is stdin"
)


def offsets_commands() -> list[CLICommand]:
    """Return the command group ``offsets``."""
    return [
        GroupCommand(
            name="offsets",
            help="See where streaming jobs stand and what a restart would do, and bring offsets from store to store",
            description="Reading joins no consumer group and commits nothing.",
            subcommands=(
                _command(
                    "backfill",
                    "Show how far the replays of a pipeline are, interval by interval",
                    "Per run of a backfill DAG: its interval, its newest attempt, shards and records, and what speaks"
                    f" against it. {_EXIT}",
                    (_PIPELINE, _FILE, _SHAPE),
                ),
                _command(
                    "compare",
                    "Show what each store of a pipeline says, and whether they agree",
                    f"Per partition: the offset in each store, and agree, expected lag (and why) or conflict. {_EXIT}",
                    (_PIPELINE, _FILE, _SHAPE),
                ),
                _command(
                    "plan",
                    "Show what a restart would do, partition by partition",
                    "Nothing is stopped, written or recorded. Ends with 0 if the plan is sound, 1 if it has a problem"
                    " or something was refused, 2 if the call is wrong.",
                    (_PIPELINE, _FILE, _START, _WINDOW, _LOSE, _SKIP, _SHAPE),
                ),
                _command(
                    "audit",
                    "Prove from the history that nothing was lost, and what was read twice",
                    "Per partition what was read, and every place where ranges do not tile, with the operation that"
                    " announced it. Ends with 0 if all is explained, 1 if not or if something was refused, 2 if the"
                    " call is wrong.",
                    (_PIPELINE, _FILE, _SINCE, _UNTIL, _SHAPE),
                ),
                _command(
                    "copy",
                    "Bring a position from one store to another",
                    f"{_DRY}\n{_EXIT}\n\n{_STORES}",
                    (
                        _FROM,
                        _TO,
                        _OF_PIPELINE,
                        _FILE,
                        _GROUP,
                        _TO_GROUP,
                        _TOPICS,
                        _KAFKA,
                        _ACCEPT,
                        _TAKE_OVER,
                        _APPLY,
                        _SHAPE,
                    ),
                ),
                _command(
                    "export",
                    "Write positions as text",
                    "To standard output, in the CSV of 'kafka-consumer-groups --export' (topic,partition,offset; of"
                    " several groups group,topic,partition,offset), or in JSON that says of which cluster and topics"
                    f" the offsets are.\n{_EXIT}\n\n{_STORES}",
                    (_FROM, _OF_PIPELINE, _FILE, _GROUPS, _TOPICS, _KAFKA, _TEXT),
                ),
                _command(
                    "import",
                    "Bring positions from a file into a store",
                    f"Reads what 'export' and Kafka's own tool write. {_DRY}\n{_EXIT}\n\n{_STORES}",
                    (_INPUT, _TO, _OF_PIPELINE, _FILE, _GROUP, _KAFKA, _ACCEPT, _TAKE_OVER, _APPLY, _SHAPE),
                ),
                _command(
                    "rename",
                    "Give a stopped pipeline another name",
                    "Its epochs, operations and snapshots go on under the new name, and nothing acts under the old one"
                    " any more. Safe to repeat. Shows what would be done, and does it only with --apply."
                    f" {_EXIT}",
                    (_OLD, _NEW, _FILE, _TAKE_OVER, _RENAME, _SHAPE),
                ),
                _snapshots_commands(),
            ),
        )
    ]


def _snapshots_commands() -> GroupCommand:
    return GroupCommand(
        name="snapshots",
        help="Name, see and remove the places that a job can be started from again",
        subcommands=(
            _command(
                "list",
                "Show the snapshots of a pipeline, the oldest first",
                f"'snapshot:<id>' or 'snapshot:<label>' starts a job from one. {_EXIT}",
                (_PIPELINE, _FILE, _SHAPE),
                "snapshots.list_snapshots",
            ),
            _command(
                "take",
                "Note where a pipeline stands now",
                f"Nothing is stopped or moved, and no consumer group is joined. {_EXIT}",
                (_PIPELINE, _FILE, _LABEL, _REASON, _SHAPE),
                "snapshots.take_snapshot",
            ),
            _command(
                "prune",
                "Remove snapshots, old checkpoints and old versions that 'keep' of the pipeline does not keep",
                f"Shows what would be removed, and removes it only with --apply. {_EXIT}",
                (_PIPELINE, _FILE, _SNAPSHOTS, _REMOVE, _SHAPE),
                "snapshots.prune_snapshots",
            ),
        ),
    )


def _command(name: str, help_: str, description: str, arguments: tuple[Arg, ...], act: str = "") -> ActionCommand:
    return ActionCommand(
        name=name,
        help=help_,
        description=description,
        func=lazy_load_command(f"airflow_provider_offsets.cli.{act or f'acts.{name}_offsets'}"),
        args=(*arguments, ARG_VERBOSE),
    )
