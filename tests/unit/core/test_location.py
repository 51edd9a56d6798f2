"""Spellings of one checkpoint: two pipelines with the same folder are found by them."""

from __future__ import annotations

import pytest

from airflow_provider_offsets.core.location import above, plain_path


@pytest.mark.parametrize(
    ("spellings", "plain"),
    [
        (["/ck/a", "/ck//a/", "/ck/b/../a", "file:/ck/a", "file:///ck/a", "file:////ck/a", "///ck/a"], "/ck/a"),
        (["hdfs://nn:8020/ck/a", "HDFS://NN:8020//ck/./a/"], "hdfs://nn:8020/ck/a"),
        (["hdfs:///ck/A"], "hdfs:///ck/A"),
        (["s3a://bucket", "s3a://bucket/"], "s3a://bucket/"),
        (["file:///ck/a#v2"], "/ck/a#v2"),
        (["/CK/x://Y"], "/CK/x:/Y"),
    ],
)
def test_spellings_of_one_folder_are_equal(spellings: list[str], plain: str) -> None:
    assert {plain_path(each) for each in spellings} == {plain}


@pytest.mark.parametrize(
    ("location", "folder", "name"),
    [
        ("/a/ck/", "/a", "ck"),
        ("/ck", "/", "ck"),
        ("a/ck", "a", "ck"),
        ("ck", ".", "ck"),
        ("file:/ck", "/", "ck"),
        ("file:///ck", "/", "ck"),
        ("file:////a/ck", "/a", "ck"),
        ("hdfs://nn/a/ck", "hdfs://nn/a", "ck"),
        ("hdfs://nn/ck/", "hdfs://nn/", "ck"),
        ("hdfs:///ck", "hdfs:///", "ck"),
    ],
)
def test_the_folder_above(location: str, folder: str, name: str) -> None:
    assert above(location) == (folder, name)
