"""Command definitions for Airflow's own parser. Airflow imports this module at every start, so it imports little."""

from __future__ import annotations

from airflow.cli.cli_config import ARG_VERBOSE, ActionCommand, Arg, CLICommand, GroupCommand, lazy_load_command

_STORES = """\
A store is named by
  <conn id>               a connection of type offsets, or of type kafka (the committed offsets of the group)
  kafka:<conn id>         a connection of type kafka
  checkpoint:<folder>     the log of a Structured Streaming checkpoint; writing to it creates a seeded checkpoint
  hbase://host:9090/table, sqlite:////file.db, zookeeper://host:2181, …   a URL without a password
"""
_EXIT = "Exit code: 0 without a problem, 1 if stores conflict or something was refused, 2 if the call is wrong."
_DRY = "Shows what would be written. With --apply, writes it as a whole, if the target still has what was shown."

_PIPELINE = Arg(("-p", "--pipeline"), help="name of the pipeline in pipelines.yaml", required=True)
_OF_PIPELINE = Arg(
    ("-p", "--pipeline"),
    help="take group and topics from this pipeline, and check the offsets against its cluster; --apply is refused"
    " while its job runs",
)
_FILE = Arg(("-f", "--file"), help="path of pipelines.yaml (default: the one in Airflow's dags folder)")
_FROM = Arg(("--from",), dest="source", metavar="STORE", help="store to read", required=True)
_TO = Arg(("--to",), dest="target", metavar="STORE", help="store to write", required=True)
_GROUP = Arg(("-g", "--group"), help="consumer group id (default: that of the pipeline)")
_GROUPS = Arg(
    ("-g", "--group"),
    action="append",
    help="consumer group id; repeatable (default: that of the pipeline)",
    dest="groups",
)
_TO_GROUP = Arg(("--to-group",), help="consumer group id to write under (default: the one that was read)")
_TOPICS = Arg(("-t", "--topics"), help="topics, comma-separated (default: those of the pipeline)")
_KAFKA = Arg(
    ("--kafka-conn-id",),
    help="id of the connection to the cluster that the offsets are checked against (default: that of the pipeline)",
)
_APPLY = Arg(("--apply",), action="store_true", help="write; without this option nothing is changed")
_ACCEPT = Arg(
    ("--accept-skipped",),
    metavar="TOPIC=COUNT",
    action="append",
    help="greatest number of unread offsets of this topic that may be skipped; repeatable",
)
_START = Arg(("-s", "--start"), help="start selectors, such as 'shift:-1000' (default: 'start' of the pipeline)")
_WINDOW = Arg(
    ("--window-s",),
    metavar="SECONDS",
    help="seconds for which the job will stay stopped; the plan has a problem if Kafka deletes unread records sooner",
)
_LOSE = Arg(
    ("--accept-lost",),
    metavar="TOPIC=COUNT",
    action="append",
    help="greatest number of offsets of this topic that may be lost; repeatable",
)
_SKIP = Arg(
    ("--accept-skipped",),
    metavar="TOPIC=COUNT",
    action="append",
    help="greatest number of offsets of this topic that may be skipped; repeatable",
)
_BOUND = "a time with its zone (2026-11-01T00:00Z), batch:<id> or epoch:<number>"
_SINCE = Arg(("--since",), metavar="WHEN", help=f"start of the report, included: {_BOUND}")
_UNTIL = Arg(("--until",), metavar="WHEN", help=f"end of the report, included: {_BOUND}")
_SINK = Arg(
    ("--sink",),
    action="store_true",
    help="compare the history with the metadata of the sink that the pipeline names; reads only",
)
_SHAPE = Arg(
    ("-o", "--output"),
    choices=("table", "plain", "json", "yaml"),
    default="table",
    help="format of the output (default: table)",
)
_TEXT = Arg(
    ("-o", "--output"),
    choices=("csv", "json"),
    default="csv",
    help="format of the output (default: csv, as of kafka-consumer-groups)",
)
_LABEL = Arg(
    ("-l", "--label"),
    help="name of the snapshot for the selector 'snapshot:<label>'; a labelled snapshot is kept until you remove it",
)
_REASON = Arg(("-r", "--reason"), help="why you take it; stored with the snapshot")
_SNAPSHOTS = Arg(
    ("--snapshot",),
    dest="snapshots",
    metavar="ID",
    action="append",
    help="id or label of a snapshot to remove even if 'keep' retains it; repeatable",
)
_REMOVE = Arg(("--apply",), action="store_true", help="remove; without this option nothing is changed")
_TAKE_OVER = Arg(
    ("--take-over",),
    action="store_true",
    help="take the pipeline over from an operation that acted recently; the next act of that operation is refused",
)
_OLD = Arg(("old",), metavar="OLD", help="previous name of the pipeline")
_NEW = Arg(("pipeline",), metavar="NEW", help="new name of the pipeline in pipelines.yaml")
_RENAME = Arg(("--apply",), action="store_true", help="rename; without this option nothing is changed")
_OWNER = Arg(("old",), metavar="OWNER", help="name of the pipeline that owns it")
_USER = Arg(("pipeline",), metavar="PIPELINE", help="name of the pipeline in pipelines.yaml that uses it now")
_RELEASE = Arg(("--apply",), action="store_true", help="release; without this option nothing is changed")
_NAMED = Arg(("pipeline",), metavar="PIPELINE", help="name of the pipeline in pipelines.yaml")
_EPOCH = Arg(("--epoch",), metavar="NUMBER", type=int, help="number of its newest epoch", required=True)
_VERIFIED = Arg(("-r", "--reason"), help="how you know that the driver does not run; recorded with the epoch")
_END = Arg(("--apply",), action="store_true", help="close the epoch; without this option nothing is changed")
_INPUT = Arg(
    ("input",), metavar="FILE", help="file that 'export' or 'kafka-consumer-groups --export' wrote; - is standard input"
)


def offsets_commands() -> list[CLICommand]:
    """Return the command group ``offsets``."""
    return [
        GroupCommand(
            name="offsets",
            help="Show positions of streaming jobs, plan restarts, audit histories, and copy offsets between stores",
            description="Reading joins no consumer group and commits nothing.",
            subcommands=(
                _command(
                    "backfill",
                    "Show the progress of the replays of a pipeline, interval by interval",
                    f"For each run of a backfill DAG: its interval, newest attempt, shards, records and state. {_EXIT}",
                    (_PIPELINE, _FILE, _SHAPE),
                ),
                _command(
                    "compare",
                    "Compare the offsets in all stores of a pipeline",
                    "For each partition: the offset in each store, and 'agree', 'expected lag' with its reason, or"
                    f" 'conflict'. {_EXIT}",
                    (_PIPELINE, _FILE, _SHAPE),
                ),
                _command(
                    "preflight",
                    "Check what a start of the job needs, while the job still runs",
                    "Checks the files and the mode of the job, the folders of logs and checkpoints, Kafka, the store"
                    " and the sink. Downloads the packages of the job, and looks for the Kafka connector and for what"
                    f" the driver's Python imports. The job is not touched. {_EXIT}",
                    (_NAMED, _FILE, _SHAPE),
                ),
                _command(
                    "plan",
                    "Plan a restart without doing it, partition by partition",
                    "Nothing is stopped, written or recorded. Exit code: 0 if the plan has no problem, 1 if it has one"
                    " or something was refused, 2 if the call is wrong.",
                    (_PIPELINE, _FILE, _START, _WINDOW, _LOSE, _SKIP, _SHAPE),
                ),
                _command(
                    "audit",
                    "Prove from the history that no record was lost, and which were replayed",
                    "For each partition: what was read, and each gap or overlap with the operation that announced it."
                    " Exit code: 0 if everything is explained and, with --sink, the sink is proven; 1 if not or if"
                    " something was refused, 2 if the call is wrong.",
                    (_PIPELINE, _FILE, _SINCE, _UNTIL, _SINK, _SHAPE),
                ),
                _command(
                    "copy",
                    "Copy a position from one store to another",
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
                    "end",
                    "End an epoch whose driver is gone for good, and cannot be observed",
                    "With --apply, you state that the driver does not run, and its epoch is closed. Refused if a stop"
                    " can end the epoch. Safe to repeat. Without --apply, only shows what would be done."
                    f" {_EXIT}",
                    (_NAMED, _FILE, _EPOCH, _VERIFIED, _TAKE_OVER, _END, _SHAPE),
                ),
                _command(
                    "export",
                    "Write positions as text",
                    "Writes to standard output. The CSV is that of 'kafka-consumer-groups --export': "
                    "topic,partition,offset, or group,topic,partition,offset for several groups. The JSON also"
                    f" has the cluster and the topic ids.\n{_EXIT}\n\n{_STORES}",
                    (_FROM, _OF_PIPELINE, _FILE, _GROUPS, _TOPICS, _KAFKA, _TEXT),
                ),
                _command(
                    "import",
                    "Write positions from a file to a store",
                    f"Reads what 'export' and 'kafka-consumer-groups --export' write. {_DRY}\n{_EXIT}\n\n{_STORES}",
                    (_INPUT, _TO, _OF_PIPELINE, _FILE, _GROUP, _KAFKA, _ACCEPT, _TAKE_OVER, _APPLY, _SHAPE),
                ),
                _command(
                    "release",
                    "Release the checkpoint, history or position that a stopped pipeline no longer uses",
                    "Takes from OWNER what PIPELINE uses. Safe to repeat. Without --apply, only shows what would be"
                    f" released. {_EXIT}",
                    (_OWNER, _USER, _FILE, _TAKE_OVER, _RELEASE, _SHAPE),
                ),
                _command(
                    "rename",
                    "Rename a stopped pipeline",
                    "Moves the epochs, operations and snapshots to the new name. Afterwards nothing can act under the"
                    f" old name. Safe to repeat. Without --apply, only shows what would be done. {_EXIT}",
                    (_OLD, _NEW, _FILE, _TAKE_OVER, _RENAME, _SHAPE),
                ),
                _snapshots_commands(),
            ),
        )
    ]


def _snapshots_commands() -> GroupCommand:
    return GroupCommand(
        name="snapshots",
        help="List, take and remove snapshots of a pipeline's position",
        subcommands=(
            _command(
                "list",
                "List the snapshots of a pipeline, the oldest first",
                f"The start selectors 'snapshot:<id>' and 'snapshot:<label>' start a job from one. {_EXIT}",
                (_PIPELINE, _FILE, _SHAPE),
                "snapshots.list_snapshots",
            ),
            _command(
                "take",
                "Store the current position of a pipeline",
                f"Nothing is stopped or moved, and no consumer group is joined. {_EXIT}",
                (_PIPELINE, _FILE, _LABEL, _REASON, _SHAPE),
                "snapshots.take_snapshot",
            ),
            _command(
                "prune",
                "Remove snapshots, old checkpoints and old versions that 'keep' does not retain",
                f"Without --apply, only shows what would be removed. {_EXIT}",
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
