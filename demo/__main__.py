"""The command line: ``python -m demo --store sqlite``."""

import argparse
import sys
from collections.abc import Sequence

import httpx

from demo import fresh
from demo.check import CheckImpossible
from demo.progress import DemoFailed, Progress
from demo.story import Story


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo and return the exit code: 0 only if no record was lost, duplicated or unexplained."""
    arguments = _parser().parse_args(argv)
    progress = Progress()
    if arguments.end:
        fresh.stop_earlier_jobs(progress)
        return 0
    story = Story(arguments.store, progress)
    try:
        return 0 if story.tell() else 1
    except (DemoFailed, CheckImpossible, httpx.HTTPError) as error:
        progress.say(f"the demo failed: {error}")
        return 1
    except KeyboardInterrupt:
        progress.say(
            "interrupted: the feed ends; servers, job and a running maintenance go on. make down stops servers"
        )
        return 130
    finally:
        story.leave()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo", description="Show a real job go through real maintenances.")
    parser.add_argument("--store", choices=("sqlite", "hbase"), default="sqlite", help="where offsets are kept")
    parser.add_argument("--end", action="store_true", help="only end the job that a demo left running")
    return parser


if __name__ == "__main__":
    sys.exit(main())
