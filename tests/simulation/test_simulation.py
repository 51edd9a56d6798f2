"""The simulation itself: a seed always yields the same history, a failure shrinks, the checker detects each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.simulation import checker, product
from tests.simulation.__main__ import KEPT, kept_seeds, main, run
from tests.simulation.chance import Happened
from tests.simulation.checker import Expected, judge
from tests.simulation.edited import EDITED
from tests.simulation.history import MODES, Outcome, run_history
from tests.simulation.shrinking import shrink

P = ("orders", 0)


@pytest.mark.parametrize("mode", [*MODES, EDITED])
def test_a_seed_is_one_history_byte_for_byte(mode: str) -> None:
    one, other = run(7, (mode,)), run(7, (mode,))
    assert [str(step) for step in one.trace] == [str(step) for step in other.trace]
    assert one.digest == other.digest
    assert one.steps > 300


def test_another_seed_is_another_history() -> None:
    assert run_history(7, MODES).digest != run_history(8, MODES).digest


def test_what_was_run_before_ctrl_c_is_in_the_last_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(seed: int, *kinds: Any) -> Outcome:
        if seed == 3:
            raise KeyboardInterrupt
        return run_history(seed, *kinds)

    monkeypatch.setattr("tests.simulation.__main__.run_history", interrupted)
    assert main(["--seeds", "4", "--from", "1", "--without-kept"]) == 130
    said = capsys.readouterr().out
    assert said.splitlines()[-1].startswith("interrupted, with 2 histories left: 2 histories, ")


def test_seeds_that_found_something_are_run_with_the_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of them: ``make simulate`` runs all."""
    monkeypatch.setattr("tests.simulation.__main__.kept_seeds", lambda: kept_seeds()[:3])
    assert main(["--seeds", "2", "--from", "1"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1].startswith("5 histories"), "a slow machine prints its progress first"
    assert "lost=0 duplicated=0 unexplained=0 false_alarms=0" in said


def test_every_kept_seed_has_its_reason() -> None:
    assert kept_seeds(KEPT)
    assert all(each.reason and set(each.kinds) <= {*MODES, EDITED} for each in kept_seeds(KEPT))


def test_histories_of_edited_pipelines_are_run_beside_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "1", "--edited", "2", "--from", "3"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("3 histories")


def test_edited_pipelines_are_drawn_with_no_other_kind(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--kinds", f"sink,{EDITED}"])
    assert "use --edited" in capsys.readouterr().err


def test_an_edited_pipeline_that_fails_is_shrunk_to_the_acts_that_it_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit is wrong if somebody edited the topics."""
    audit_of = product.audit_of

    def audited(world: product.World) -> dict[str, Any]:
        is_edited = any(each[-1].endswith("topics: returns") for each in world.sim.passed)
        return {**audit_of(world), **({"unexplained_count": 1} if is_edited else {})}

    monkeypatch.setattr(product, "audit_of", audited)
    assert main(["--kinds", EDITED, "--seeds", "1", "--from", "610"]) == 1
    said = capsys.readouterr().out
    assert "false_alarms" in said
    assert "with 1 faults and steps of the world" in said
    assert "again: python -m tests.simulation --seeds 1 --from 610 --kinds edited" in said


def test_a_failing_history_shrinks_to_what_it_needs(tmp_path: Path) -> None:
    def run_with(steps: frozenset[int]) -> Outcome:
        happened = [Happened(step, "kill") for step in sorted(steps)]
        return outcome(happened, "lost" if {3, 8} <= steps else "")

    def outcome(happened: list[Happened], failure: str) -> Outcome:
        return Outcome(1, "process", 9, {}, failure, happened=happened)  # type: ignore[arg-type]

    smallest = shrink(outcome([Happened(step, "kill") for step in range(12)], "lost"), run_with)
    assert [each.step for each in smallest.happened] == [3, 8]


def span(low: int, high: int) -> checker.Span:
    return P, low, high


def expected(*reads: checker.Span, **more: list[checker.Span]) -> Expected:
    return Expected({P: 0}, {P: 6}, list(reads) or [span(0, 6)], **more)


def audited(**more: int) -> dict[str, object]:
    return {"lost": 0, "replayed": 0, "unexplained_count": 0, "discontinuities": [], **more}


def replays(low: int, high: int) -> list[dict[str, object]]:
    return [{"kind": "replay", "range": {"topic": "orders", "partition": 0, "start": low, "end": high}}]


ONCE = [(P, offset) for offset in range(6)]


@pytest.mark.parametrize(
    ("written", "said", "audit", "found"),
    [
        pytest.param(ONCE, expected(), audited(), "clean", id="each record once"),
        pytest.param(ONCE[:3] + ONCE[4:], expected(), audited(), "lost", id="one is missing"),
        pytest.param(
            ONCE[:3] + ONCE[4:], expected(announced_gaps=[span(3, 4)]), audited(), "clean", id="a plan left it out"
        ),
        pytest.param([*ONCE, ONCE[5]], expected(), audited(), "duplicated", id="one is there twice"),
        pytest.param(
            [*ONCE, ONCE[5]],
            expected(span(0, 6), span(5, 6), announced_replays=[span(5, 6)]),
            audited(replayed=1, discontinuities=replays(5, 6)),  # type: ignore[arg-type]
            "clean",
            id="a plan announced that it is read again",
        ),
        pytest.param(
            [*ONCE, ONCE[5]], expected(cut_off=[span(5, 6)]), audited(), "unexplained", id="the audit does not name it"
        ),
        pytest.param([*ONCE[:2], *ONCE[3:], ONCE[2]], expected(), audited(), "reordered", id="one comes late"),
        pytest.param(ONCE, expected(), audited(lost=2), "false_alarms", id="the audit calls it lost"),
        pytest.param(ONCE, expected(), audited(unexplained_count=1), "false_alarms", id="the audit explains nothing"),
        pytest.param(
            ONCE, expected(), audited(replayed=3), "false_alarms", id="the audit counts what was not read again"
        ),
    ],
)
def test_the_checker(
    written: list[tuple[checker.Key, int]], said: Expected, audit: dict[str, object], found: str
) -> None:
    verdict = judge(written, said, audit)
    kinds = [name for name, value in vars(verdict).items() if value]
    assert found in kinds if found != "clean" else verdict.is_clean, str(verdict)
