"""Take the docs' screenshots of Airflow from a demo that has run: ``make screenshots``.

The job of ``make demo`` still runs after the demo. One more run of its DAG asks for approval of its plan. That plan is
rejected afterwards, so nothing happens to the job.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

import stack
from demo import DAG_ID
from demo.airflow_api import Airflow
from demo.progress import DemoFailed, Progress, wait_for

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "assets" / "screenshots"
THEMES = ("light", "dark")
_TIMEOUT_MS = 60_000
_RUN_ID = "screenshots-"
"""How the ids of this command's own runs begin. Each is rejected, so it succeeds without an audit."""


def main(argv: Sequence[str] | None = None) -> int:
    """Take every screenshot in every theme, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m demo.screenshots", description=__doc__.splitlines()[0])
    parser.parse_args(argv)
    progress = Progress()
    try:
        with _chromium() as browser, _waiting_approval(_connected(), progress) as (airflow, maintenance, asking):
            for theme in THEMES:
                for file in _take(browser, airflow, maintenance, asking, theme):
                    progress.say(f"wrote {file.relative_to(Path.cwd())}")
    except (DemoFailed, Error, httpx.HTTPError, AssertionError) as error:
        progress.say(f"no screenshots: {error}")
        return 1
    return 0


def _connected() -> Airflow:
    endpoints = stack.endpoints()
    if "airflow" not in endpoints:
        raise DemoFailed("Airflow does not run. Run make demo first, and leave its servers running.")
    return Airflow(endpoints["airflow"]["url"], DAG_ID)


@contextmanager
def _waiting_approval(airflow: Airflow, progress: Progress) -> Iterator[tuple[Airflow, str, str]]:
    """Yield Airflow, the newest maintenance, and a run that waits for approval, which is rejected at the end."""
    succeeded = [run["dag_run_id"] for run in airflow.runs() if run["state"] == "success"]
    ended = [each for each in succeeded if not each.startswith(_RUN_ID)]
    if not ended:
        raise DemoFailed(f"{DAG_ID} has no successful run. Run make demo first.")
    run_id = f"{_RUN_ID}{datetime.now(UTC):%Y%m%dT%H%M%S}"
    airflow.trigger(run_id, {"approve": True, "reason": "Upgrade Spark on the driver's host."})
    try:
        wait_for("the plan to wait for approval", lambda: _is_waiting(airflow, run_id), limit_s=300)
        progress.say(f"the plan of run {run_id} waits for approval")
        yield airflow, ended[0], run_id
    finally:
        if _is_waiting(airflow, run_id):
            airflow.reject(run_id, "approve")
        else:
            airflow.end_run(run_id)
        wait_for(f"run {run_id} to end", lambda: run_id not in airflow.unfinished_runs(), limit_s=120)
        progress.say(f"run {run_id} has ended; the job keeps running")


def _is_waiting(airflow: Airflow, run_id: str) -> bool:
    return airflow.tasks(run_id)["approve"]["state"] in ("deferred", "awaiting_input")


@contextmanager
def _chromium() -> Iterator[Browser]:
    """Yield Debian's Chromium. It refuses its sandbox to root, and a small /dev/shm would crash its tabs."""
    found = shutil.which("chromium")
    if found is None:
        raise DemoFailed("chromium is not installed. Run apt-get install chromium.")
    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


def _take(browser: Browser, airflow: Airflow, maintenance: str, asking: str, theme: Any) -> Iterator[Path]:
    """Yield the file of each screenshot in one theme."""
    expect.set_options(timeout=_TIMEOUT_MS)
    context = browser.new_context(viewport={"width": 1280, "height": 880}, color_scheme=theme, locale="en-GB")
    context.set_default_timeout(_TIMEOUT_MS)
    context.add_cookies([{"name": "_token", "value": airflow.token, "url": airflow.url}])
    for name, show in (("dag", _dag), ("trigger-form", _trigger_form), ("approval", _approval), ("audit", _audit)):
        page = context.new_page()
        show(page, airflow.page, asking if name == "approval" else maintenance)
        file = FOLDER / f"{name}-{theme}.png"
        page.screenshot(path=file, animations="disabled")
        yield file
    context.close()


def _dag(page: Page, dag_url: str, run_id: str) -> None:
    page.goto(f"{dag_url}/runs/{run_id}")
    expect(page.get_by_role("link", name="submit", exact=True).first).to_be_visible()


def _trigger_form(page: Page, dag_url: str, run_id: str) -> None:
    page.set_viewport_size({"width": 1280, "height": 1250})
    page.goto(dag_url)
    page.get_by_role("button", name="Trigger Dag").click()
    expect(page.get_by_role("dialog")).to_contain_text("Dry run")


def _approval(page: Page, dag_url: str, run_id: str) -> None:
    page.goto(f"{dag_url}/runs/{run_id}/tasks/approve/required_actions")
    expect(page.get_by_role("button", name="Approve")).to_be_visible()


def _audit(page: Page, dag_url: str, run_id: str) -> None:
    page.goto(f"{dag_url}/runs/{run_id}/tasks/audit")
    expect(page.get_by_text("unexplained").first).to_be_visible()


if __name__ == "__main__":
    sys.exit(main())
