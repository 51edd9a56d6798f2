"""Spellings of one checkpoint: two pipelines with the same folder are found by them."""

from __future__ import annotations

import pytest

from airflow_provider_offsets.core.location import above, normal_url, plain_path, resolved, scheme_of


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
        ("/a/ck/x/..", "/a", "ck"),
        ("file:///a/./ck/.", "/a", "ck"),
    ],
)
def test_the_folder_above(location: str, folder: str, name: str) -> None:
    assert above(location) == (folder, name)


@pytest.mark.parametrize(
    ("location", "scheme"),
    [
        ("/ck/a", ""),
        ("ck/a:b", ""),
        ("/ck/x://y", ""),
        ("file:/ck", "file"),
        ("HDFS://NN/ck", "hdfs"),
        ("s3a://bucket/a:b", "s3a"),
        ("a:b/c", "a"),
        ("hdfs://[x/ck", "hdfs"),
    ],
)
def test_the_scheme_is_that_of_hadoops_path(location: str, scheme: str) -> None:
    assert scheme_of(location) == scheme


@pytest.mark.parametrize(
    ("location", "normal"),
    [
        ("s3a://bucket//ck/./b/../a/", "s3a://bucket/ck/a"),
        ("memory://Root/a#b?c%20d e", "memory://Root/a#b?c%20d e"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("/ck//a", "/ck//a"),
    ],
)
def test_a_url_has_the_path_that_hadoop_opens(location: str, normal: str) -> None:
    assert normal_url(location) == normal


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("/ck/a/", "/ck/a"),
        ("/ck/a#b?c/", "/ck/a#b?c"),
        ("file:///ck/x/..//a/.", "file:///ck/a"),
        ("file:/ck/a/", "file:/ck/a"),
        ("hdfs://NN:8020//ck/./a", "hdfs://NN:8020/ck/a"),
        ("s3a://bucket/", "s3a://bucket/"),
        ("s3a://bucket", "s3a://bucket"),
        ("ck/x/../a", "ck/a"),
        ("/CK/x://Y", "/CK/x:/Y"),
        ("", ""),
    ],
)
def test_a_suffix_names_a_folder_beside_it(location: str, name: str) -> None:
    assert resolved(location) == name
    assert plain_path(location or ".") == plain_path(name or ".")
