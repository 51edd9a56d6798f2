"""The pace of the demo's feed. The demo itself shows with a real broker that the feed delivers."""

import itertools

from demo.feed import due_after


def test_gives_most_at_first_and_never_all():
    seconds = [due_after(each, 336_776, 150) for each in range(0, 1_000, 100)]
    steps = [later - earlier for earlier, later in itertools.pairwise(seconds)]
    assert seconds[0] == 0
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] > 0
    assert seconds[-1] < 336_776
