"""A program of ``jobs/sinks`` with faults: ``sink_program.py <home> <program> [arguments of the program]``.

The faults file is that of ``evidence_job.py`` with one place, ``after``: the batch is written and not recorded. The
first driver of a shard that finds the file ``kill-shard-<number>`` removes it, and dies at the same place.
"""

import json
import os
import runpy
import signal
import sys
from pathlib import Path

from airflow_provider_offsets.core.replay.shard import RecordShard
from airflow_provider_offsets.runtime.held_epoch import HeldEpoch
from airflow_provider_offsets.runtime.shard_replay import ShardReplay

HOME, PROGRAM = Path(sys.argv[1]), sys.argv[2]
record, change = HeldEpoch.record, ShardReplay._change


def record_or_die(epoch, *arguments, **settings):
    """Record the batch, unless a fault comes first."""
    faults = json.loads((HOME / "faults.json").read_text())
    if any((each["epoch"], each["at"]) == (epoch.number, "after") for each in faults):
        die()
    record(epoch, *arguments, **settings)


def change_or_die(replay, event):
    """Change the record of the shard, unless a fault comes before the shard is recorded."""
    fault = HOME / f"kill-shard-{replay._claim.shard.number}"
    if isinstance(event, RecordShard) and fault.exists():
        fault.unlink()
        die()
    change(replay, event)


def die():
    """Kill the driver with its JVM."""
    os.killpg(os.getpgid(0), signal.SIGKILL)


HeldEpoch.record, ShardReplay._change = record_or_die, change_or_die
sys.argv = sys.argv[2:]
runpy.run_path(PROGRAM, run_name="__main__")
