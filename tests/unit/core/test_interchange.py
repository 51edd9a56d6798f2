"""Positions as text: the format of Kafka's own tool is read and written.

The integration tests compare with the tool itself.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_offsets.core.hidden import hidden_character
from airflow_provider_offsets.core.interchange import GroupPosition, read_positions, to_csv, to_json
from airflow_provider_offsets.core.live import TopicIdentity
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.errors import InputRefused
from tests.unit.core.observations import at

ONE = GroupPosition("g", at(3, 0, topic="t"))


def test_one_group_has_three_columns_and_several_have_four() -> None:
    assert to_csv([ONE]) == "t,0,3\nt,1,0\n"
    assert to_csv([ONE, GroupPosition("h", at(7, topic="u"))]) == "g,t,0,3\ng,t,1,0\nh,u,0,7\n"


def test_a_group_id_that_begins_like_json_is_no_json() -> None:
    odd = [GroupPosition('{"groups":', at(1)), GroupPosition("{}", at(2)), GroupPosition("{", at(3))]

    assert list(read_positions(to_csv(odd))) == odd


def test_a_group_id_with_a_comma_or_a_quote_is_quoted() -> None:
    odd = GroupPosition('a,"b"', at(1, topic="t"))

    assert to_csv([ONE, odd]).splitlines()[-1] == '"a,""b""",t,0,1'


@pytest.mark.parametrize(
    ("text", "group", "expected"),
    [
        ("t,0,3\nt,1,0\n", "g", [ONE]),
        ("t,0,3\r\nt,1,0", "g", [ONE]),
        ("\ufefft,0,3\nt,1,0\n\n", "g", [ONE]),
        (f"\ufeff{to_json([ONE])}", "", [ONE]),
        ('"t",0,"3"\nt, 1,0 \n', "g", [ONE]),
        ("t,1,0\nt,0,3\n", "g", [ONE]),
        ("g,t,0,3\nh,u,0,7\ng,t,1,0\n", "", [ONE, GroupPosition("h", at(7, topic="u"))]),
        ("g,t,0,3\nh,u,0,7\ng,t,1,0\n", "g", [ONE]),
        ('{"t":{"0":3,"1":0}}', "g", [ONE]),
        ('\ufeff { "t" : {"0":3,"1":0} }\n', "g", [ONE]),
        (to_json([ONE]), "", [ONE]),
        (to_json([ONE, GroupPosition("h", at(7))]), "g", [ONE]),
    ],
    ids=[
        "one group",
        "crlf",
        "bom and empty line",
        "bom and json",
        "quotes and blanks",
        "any order",
        "many",
        "one of many",
        "startingOffsets of Spark",
        "the same with a bom",
        "json",
        "one of json",
    ],
)
def test_it_is_read(text: str, group: str, expected: list[GroupPosition]) -> None:
    assert list(read_positions(text, group_id=group)) == expected


@pytest.mark.parametrize(
    ("text", "group", "says"),
    [
        ("", "g", "no position"),
        ("topic,partition,offset\n", "g", "partition 'partition'"),
        ("t,0\n", "g", "line 1 with 2 fields"),
        ("t,0,3\ng,t,1,0\n", "g", "line 2 with 4 fields"),
        ("t,0,3\n", "", "line 1 without a group"),
        ("t,0,-1\n", "g", "offset '-1'"),
        ("t,0,1.5\n", "g", "offset '1.5'"),
        ("t,0,9223372036854775808\n", "g", "offset '9223372036854775808'"),
        ("t,2147483648,1\n", "g", "partition '2147483648'"),
        ("t,0," + "9" * 5_000, "g", "offset '9999"),
        ("t,0,٣\n", "g", "offset '٣'"),
        ("t,0,3\nt,0,4\n", "g", "t[0] of group 'g' a second time"),
        ('t,0,"3\n', "g", "CSV that cannot be read"),
        ("g,t,0,3\n", "other", "no position of group 'other'; it has the groups 'g'"),
        ('{"', "", "JSON that cannot be read"),
        ('{"groups":[{"position":{}}]}', "", "JSON that cannot be read"),
        ('{"groups":[{"group_id":"g","position":{"t":{"0":-1}}}]}', "", "JSON that cannot be read"),
        ('{"groups":[{"group_id":"g","position":{"t":{"0":9223372036854775808}}}]}', "", "offset 9223372036854775808"),
        ('{"groups":[{"group_id":"g","position":{}},{"group_id":"g","position":{}}]}', "", "group 'g' twice"),
        ('{"groups":[{"group_id":"g","position":{"t":{"0":1,"0":9}}}]}', "", "'0' appears twice"),
        ('{"groups":[{"group_id":"g","position":{"t":{"0":1}},"offsets":{}}]}', "", "unknown key 'groups[0].offsets'"),
        ('{"groups":[{"group_id":" g","position":{"t":{"0":1}}}]}', "", "' g' has a space (U+0020) at its start"),
        ('{"groups":[{"group_id":"g","position":{"t\u200b":{"0":1}}}]}', "", "a zero width space (U+200B) at its end"),
        ('{"groups":[{"group_id":"g","position":{"t":{"0":NaN}}}]}', "", "NaN is no number of JSON"),
        ("g\u00a0,t,0,3\n", "", "line 1: 'g\\xa0' with a no-break space (U+00A0) at its end"),
        ("t ,0,3\n", "g", "line 1: 't ' with a space (U+0020) at its end"),
        ("t,0,3\n", " g", "' g' with a space"),
        ('{"t":{"0":-2}}', "g", "-1 (latest) and -2 (earliest) are no offsets"),
        ('{"t":{"0":1}}', "", "names no group"),
        ('{"partitions":[{"topic":"t","partition":0,"offset":3}],"version":1}', "g", "JSON of kafka-delete-records"),
        ('{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[1]}]}', "g", "another tool of Kafka"),
        ('{"topic":"t","offset":3}', "g", "JSON with 'topic', 'offset', and without the key 'groups'"),
        ("{}", "g", "JSON with nothing in it"),
        ('{"t":{}}', "g", "no offset of group 'g'"),
        ('{"groups":[{"group_id":"g","position":{}}]}', "", "no offset of group 'g'"),
        ('{"t":{"2147483648":1}}', "g", "partition 2147483648"),
        ('[{"topic":"t"}]', "g", "JSON with a list, and without"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, group: str, says: str) -> None:
    with pytest.raises(InputRefused) as refused:
        read_positions(text, group_id=group)

    assert says in str(refused.value)
    assert len(str(refused.value)) < 500


topics = st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True)
groups = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp")), min_size=1, max_size=20
).filter(lambda text: not hidden_character(text))
positions = st.dictionaries(
    st.builds(TopicPartition, topics, st.integers(0, 2**31 - 1)), st.integers(0, 2**63 - 1), min_size=1
).map(Position)
some = st.dictionaries(groups, positions, min_size=1, max_size=3).map(
    lambda found: [GroupPosition(group, position) for group, position in found.items()]
)


@given(some)
def test_csv_is_read_as_it_was_written(written: list[GroupPosition]) -> None:
    whose = written[0].group_id if len(written) == 1 else ""

    assert list(read_positions(to_csv(written), group_id=whose)) == written


@given(some, st.one_of(st.none(), st.builds(TopicIdentity, groups, st.dictionaries(topics, groups))), groups)
def test_json_is_read_as_it_was_written(
    written: list[GroupPosition], identity: TopicIdentity | None, store: str
) -> None:
    named = [GroupPosition(each.group_id, each.position, identity, store) for each in written]

    assert list(read_positions(to_json(named))) == named
