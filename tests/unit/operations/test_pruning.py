"""Which snapshots, checkpoints and versions are removed; a killed removal is finished by the next one."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_provider_offsets.checkpoint.files import open_checkpoint
from airflow_provider_offsets.checkpoint.log import read_state
from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.pruning import KeepPolicy, Prunable
from airflow_provider_offsets.errors import InputRefused, RollbackRefused, SnapshotNotFound, StoreDataError
from airflow_provider_offsets.operations.auditing import audit_history
from airflow_provider_offsets.operations.pruning import find_prunable, remove
from airflow_provider_offsets.operations.versions import keep_version, restored_job
from tests.unit.operations import steps
from tests.unit.operations.lab import NAME, Crash, Driver, Fuse, Lab, Moment, install

KEEP = KeepPolicy(snapshots=2, checkpoints=2, versions=2)
NOW_MS = 4_000_000_000_000


@pytest.fixture(scope="module", params=[(), ("checkpoint",)], ids=["tracked", "untracked"])
def rewound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Moment:
    """Return the state of a job that was started, and then rewound four times, each time by another version."""
    with pytest.MonkeyPatch.context() as patch:
        lab = install(Lab(tmp_path_factory.mktemp("old"), offsets_in=request.param, more={"keep": KEEP}), patch)
        lab.wipe()
        for number in range(5):
            rewind(lab, number)
        return Moment(lab)


@pytest.fixture
def old(rewound: Moment, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Return such a job, of which each test has its own copy."""
    lab = install(rewound.copy(), monkeypatch)
    for each in applications(lab).glob("*.json"):
        os.utime(each, (0, 0))  # the lab's clock is far behind the time of this file
    return lab


def rewind(lab: Lab, number: int) -> None:
    operation = f"op-{number}"
    Path(lab.pipeline.job.application).write_text(f"version {number}")
    steps.stop(lab, operation)
    steps.start(lab, "shift:-10" if number else "committed", operation)
    for _ in range(4):
        lab.tick()
    lab.session(operation).take_snapshot("snapshot", reason="", taken_at=f"2026-01-0{number + 1}T00:00:00Z")


def applications(lab: Lab) -> Path:
    return Path(lab.pipeline.job.log_dir) / "applications"


def find(lab: Lab) -> Prunable:
    return find_prunable(lab.control, lab.pipeline, at_ms=NOW_MS)


def checkpoints(lab: Lab) -> list[str]:
    return sorted(str(each) for each in lab.folder.glob("checkpoint*"))


def left_behind(lab: Lab) -> list[str]:
    """Return the checkpoints older than the one in use, oldest first, without the first one of a tracked job."""
    if lab.pipeline.tracked:
        return [epoch.claim.checkpoint for epoch in lab.control.epochs()][1:-1]
    return [f"{lab.pipeline.job.checkpoint}-before-{epoch.claim.plan}" for epoch in lab.control.epochs()][1:]


def test_what_is_beyond_the_newest_goes_and_is_named(old: Lab) -> None:
    versions = [epoch.claim.version for epoch in old.control.epochs()]
    there, said = set(checkpoints(old)), list[str]()
    audit = audit_history(old.session("audit"))

    found = find(old)

    assert found == Prunable(
        snapshots=tuple(f"op-{number}#snapshot" for number in range(3)),
        checkpoints=tuple(left_behind(old)[:-1]),
        versions=tuple(versions[:3]),
    )
    assert set(checkpoints(old)) == there, "found is not removed"
    assert remove(old.control, old.pipeline, found, report=said.append) == found
    assert len(said) == len(found.snapshots) + len(found.checkpoints) + len(found.versions)
    assert set(checkpoints(old)) == there - set(found.checkpoints)
    assert [each.id for each in old.control.snapshots()] == ["op-3#snapshot", "op-4#snapshot"]
    with pytest.raises(RollbackRefused, match="is gone"):
        restored_job(old.pipeline.job, versions[2])
    assert Path(restored_job(old.pipeline.job, versions[3]).application).read_text() == "version 3"
    assert find(old) == Prunable()
    assert audit_history(old.session("audit")) == audit, "the record is as it was"

    rewind(old, 5)
    audited = audit_history(old.session("audit"))
    assert (audited.lost, audited.unexplained) == (0, ())


def test_a_named_snapshot_is_no_reason_to_remove_the_others(old: Lab) -> None:
    """A person removes the two newest snapshots, which are wrong. The next ones are then the newest that are kept."""
    found = find_prunable(old.control, old.pipeline, at_ms=NOW_MS, named=["op-4#snapshot", "op-3#snapshot"])

    remove(old.control, old.pipeline, found)

    assert [each.id for each in old.control.snapshots()] == ["op-1#snapshot", "op-2#snapshot"]


@pytest.mark.sweep
@pytest.mark.parametrize("after", [False, True], ids=["before the write", "after the write"])
def test_killed_at_any_write_it_is_finished_by_the_next_run(
    after: bool, old: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = set(checkpoints(old))
    found = find(old)
    rmtree, unlink = shutil.rmtree, Path.unlink
    monkeypatch.setattr("shutil.rmtree", lambda *a, **k: old.fuse.write(lambda: rmtree(*a, **k)))
    monkeypatch.setattr(Path, "unlink", lambda *a, **k: old.fuse.write(lambda: unlink(*a, **k)))

    kills = 0
    while (left := find(old)) != Prunable():
        old.fuse = Fuse(1 + kills, after)
        try:
            with old.fuse.lit():
                remove(old.session("prune").control, old.pipeline, left)
        except Crash:
            kills += 1

    assert kills >= 5
    assert set(checkpoints(old)) == there - set(found.checkpoints)
    assert len(list(applications(old).glob("*.json"))) == 2
    assert len([each for each in applications(old).iterdir() if each.is_dir()]) == 2
    assert [each.id for each in old.control.snapshots()] == ["op-3#snapshot", "op-4#snapshot"]


def test_what_is_not_ours_by_its_content_stays_and_is_named(old: Lab) -> None:
    """Somebody has used the checkpoint by hand, or has replaced it by something else."""
    oldest = left_behind(old)[0]
    if old.pipeline.tracked:
        committed = max(int(each.name) for each in Path(oldest, "commits").iterdir())
        planted = max(int(each.name) for each in Path(oldest, "offsets").iterdir())
        for number in (planted + 1, planted + 2):
            shutil.copy(Path(oldest, "offsets", str(committed)), Path(oldest, "offsets", str(number)))
            shutil.copy(Path(oldest, "commits", str(committed)), Path(oldest, "commits", str(number)))
        why = "another job has gone on there"
    else:
        [planted] = [each for each in Path(oldest, "offsets").iterdir() if "closed.by" in each.read_text()]
        planted.unlink()
        why = "it was not closed by a restart"

    found = find(old)

    assert oldest not in found.checkpoints
    assert found.retained == (f"{oldest}: {why}",)


def test_what_is_not_ours_by_its_name_is_not_looked_at(old: Lab) -> None:
    base = Path(old.pipeline.job.checkpoint)
    shutil.copytree(left_behind(old)[0], f"{base}-mine")
    shutil.copytree(left_behind(old)[0], f"{base}-0123456789abcdef")

    found = find(old)

    assert set(found.checkpoints) == set(left_behind(old)[:-1])
    assert found.retained == ()


def test_a_checkpoint_that_a_person_has_named_stays_though_it_begins_like_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipeline's first checkpoint was ``alerts-old``, and is ``alerts`` now."""
    place = tmp_path / "old"
    lab = install(Lab(place, checkpoint=str(place / "alerts-old"), more={"keep": KEEP}), monkeypatch)
    lab.wipe()
    for number in range(5):
        rewind(lab, number)
    lab.checkpoint = str(place / "alerts")

    assert find(lab).checkpoints == ()


def test_what_a_plan_has_seeded_and_nobody_started_yet_stays(old: Lab) -> None:
    """An apply waits for its submit: both the checkpoint that it seeded and the one that it read are retained."""
    steps.stop(old, "next")
    applied = steps.apply(old, "shift:-10", "next")

    remove(old.control, old.pipeline, find(old))

    assert read_state(open_checkpoint(applied.checkpoint)) is not None
    assert steps.submit(old, applied, "next").epoch == 6


def test_one_that_nobody_has_seen_end_stays(old: Lab) -> None:
    if not old.pipeline.tracked:
        return  # it is moved aside only if its job was seen dead
    name = "epoch/00000002"
    text = old.store.get(NAME, name)
    epoch = old.control.kept_epoch(2)
    assert epoch is not None
    old.store.check_and_put(NAME, name, text, codec.dumps(replace(epoch, ended=None)))

    found = find(old)

    assert found.retained == (f"{left_behind(old)[0]}: epoch 2 ran on it, and its end is not recorded",)


def test_a_launch_that_was_cancelled_counts_for_nothing(old: Lab) -> None:
    """It used no checkpoint and no version, and no snapshot is kept for it."""
    before = find(old)

    def killed(driver: Driver) -> None:
        raise Crash

    steps.stop(old, "next")
    applied = steps.apply(old, operation="next")
    old.on_launch = killed
    with pytest.raises(Crash):
        steps.submit(old, applied, "next")
    old.on_launch = lambda driver: None
    steps.stop(old, "next but one", take_over=True)
    for each in applications(old).glob("*.json"):
        os.utime(each, (0, 0))

    found = find(old)

    assert (found.checkpoints, found.versions) == (before.checkpoints, before.versions)


def test_a_version_that_is_being_submitted_stays(old: Lab) -> None:
    """It is kept before its launch, and no epoch names it yet: the time of its last use decides."""
    oldest = next(iter(old.control.epochs())).claim.version
    os.utime(applications(old) / f"{oldest}.json")

    assert oldest not in find(old).versions


def test_a_copy_that_another_version_has_too_stays(old: Lab) -> None:
    epochs = list(old.control.epochs())
    job = replace(old.pipeline.job, arguments=("--twin",))
    Path(job.application).write_text("version 0")
    twin = keep_version(job)

    remove(old.control, old.pipeline, find(old))

    assert not (applications(old) / f"{epochs[0].claim.version}.json").exists()
    assert Path(restored_job(job, twin.digest).application).read_text() == "version 0"


def test_without_a_policy_nothing_goes(old: Lab) -> None:
    old.more["keep"] = KeepPolicy()

    assert find(old) == Prunable()


def test_what_cannot_be_removed_keeps_nothing_else_from_going(old: Lab) -> None:
    found = find(old)
    Path(f"{found.checkpoints[0]}.removed").write_text("in the way")

    done = remove(old.control, old.pipeline, found)

    assert done.checkpoints == found.checkpoints[1:]
    assert done.versions == found.versions
    [retained] = done.retained
    assert retained.startswith(f"{found.checkpoints[0]}: ")


class TestLabels:
    def take(self, lab: Lab, label: str, operation: str = "op") -> None:
        lab.session(operation).take_snapshot("by-hand", reason="", taken_at="2026-01-01T00:00:00Z", label=label)

    def test_a_start_is_named_by_it(self, lab: Lab) -> None:
        steps.start(lab)
        self.take(lab, "before-2.1")
        lab.feed(10)
        lab.tick()
        steps.stop(lab)

        assert steps.plan(lab, "snapshot:before-2.1").start == lab.at(100, 100)

    def test_no_two_snapshots_have_one(self, lab: Lab) -> None:
        self.take(lab, "good")
        self.take(lab, "good")

        with pytest.raises(InputRefused, match=r"Label 'good' already belongs to snapshot 'op#by-hand'"):
            self.take(lab, "good", "other")

    @pytest.mark.parametrize("label", ["a#b", "a b", "a|b", "-a", "a/b"])
    def test_what_is_no_name_is_refused(self, label: str, lab: Lab) -> None:
        with pytest.raises(InputRefused, match="label"):
            self.take(lab, label)

    def test_two_people_at_the_same_time(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as both:
            both.setattr(Control, "labelled", lambda self, label: [])
            self.take(lab, "good")
            self.take(lab, "good", "other")

        with pytest.raises(StoreDataError, match=r"Label 'good' belongs to op#by-hand, other#by-hand"):
            lab.control.named_snapshot("good")
        assert lab.control.named_snapshot("other#by-hand").operation == "other"

    def test_one_that_was_removed_is_not_found_and_may_be_taken_again(self, lab: Lab) -> None:
        self.take(lab, "good")
        lab.control.remove_snapshot("op#by-hand")
        lab.control.remove_snapshot("op#by-hand")

        with pytest.raises(SnapshotNotFound, match="none at all"):
            lab.control.named_snapshot("good")
        self.take(lab, "good")
        assert lab.control.named_snapshot("good").id == "op#by-hand"
