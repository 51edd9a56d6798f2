"""What Airflow asks of this provider: one wrong word there breaks the discovery of all providers."""

from __future__ import annotations

import configparser
import importlib
import importlib.metadata
import inspect
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.plugins_manager import AirflowPlugin
from airflow.sdk import BaseHook

import airflow_provider_offsets
from airflow_provider_offsets.get_provider_info import get_provider_info
from airflow_provider_offsets.hooks.offsets import OffsetsHook

INFO = get_provider_info()
LAYERS = ("operators", "sensors", "hooks", "triggers")
ROOT = Path(airflow_provider_offsets.__file__).parent
CHECKOUT = Path(__file__).parents[2]


def test_its_name_is_that_of_the_distribution() -> None:
    """Otherwise Airflow raises for the whole installation."""
    distribution = importlib.metadata.distribution(INFO["package-name"])

    assert distribution.metadata["Name"] == INFO["package-name"] == "airflow-provider-offsets"
    assert distribution.version == airflow_provider_offsets.__version__


def test_it_holds_against_airflow_s_own_schema() -> None:
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())

    jsonschema.validate(INFO, schema)


def named_in(layer: str) -> set[str]:
    return {module for entry in INFO[layer] for module in entry["python-modules"]}


@pytest.mark.parametrize("layer", ["operators", "sensors", "triggers"])
def test_every_module_that_it_names_is_there_and_none_is_left_out(layer: str) -> None:
    there = {file.stem for file in (ROOT / layer).glob("*.py")} - {"__init__", "base"}

    assert named_in(layer) == {f"airflow_provider_offsets.{layer}.{name}" for name in there}
    for module in named_in(layer):
        importlib.import_module(module)


def test_it_names_the_modules_with_a_hook_of_airflow_s() -> None:
    """The folder also has helpers, which open clients from connections and are no hooks."""
    modules = [importlib.import_module(f"airflow_provider_offsets.hooks.{file.stem}") for file in hook_files()]

    assert named_in("hooks") == {module.__name__ for module in modules if hooks_of(module)}


def hook_files() -> list[Path]:
    return [file for file in (ROOT / "hooks").glob("*.py") if file.stem != "__init__"]


def hooks_of(module: ModuleType) -> list[type[BaseHook]]:
    kinds = [kind for kind in vars(module).values() if inspect.isclass(kind) and issubclass(kind, BaseHook)]
    return [kind for kind in kinds if kind.__module__ == module.__name__]


def test_its_links_are_those_of_the_docs_site() -> None:
    [integration] = INFO["integrations"]
    site_url = re.search(r"^site_url: (\S+)$", (CHECKOUT / "mkdocs.yml").read_text(), re.MULTILINE)
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(CHECKOUT / "setup.cfg")

    assert site_url is not None
    assert integration["external-doc-url"] == site_url[1]
    assert setup["metadata"]["project_urls"].strip() == f"Documentation = {site_url[1]}"
    assert integration["logo"].startswith(site_url[1])
    assert (CHECKOUT / "docs" / integration["logo"].removeprefix(site_url[1])).is_file()


def test_every_layer_belongs_to_an_integration_that_is_described() -> None:
    described = {each["integration-name"] for each in INFO["integrations"]}

    assert {entry["integration-name"] for layer in LAYERS for entry in INFO[layer]} == described


def test_the_connection_type_is_the_hook_s() -> None:
    [connection] = INFO["connection-types"]
    module, _, name = connection["hook-class-name"].rpartition(".")

    assert getattr(importlib.import_module(module), name) is OffsetsHook
    assert (connection["connection-type"], connection["hook-name"]) == (OffsetsHook.conn_type, OffsetsHook.hook_name)
    assert set(connection["conn-fields"]) == {"url"}, "what store_url reads"
    assert "password" not in connection["ui-field-behaviour"]["hidden-fields"]


def entry_points(group: str) -> dict[str, Any]:
    distribution = importlib.metadata.distribution("airflow-provider-offsets")
    return {each.name: each.load() for each in distribution.entry_points if each.group == group}


def test_airflow_finds_the_provider() -> None:
    assert entry_points("apache_airflow_provider") == {"provider_info": get_provider_info}


def test_airflow_finds_the_plugin() -> None:
    """Not by provider info: Airflow does not load plugins from there by default."""
    [(name, plugin)] = entry_points("airflow.plugins").items()

    assert issubclass(plugin, AirflowPlugin)
    assert plugin.name == name == "offsets"
    plugin.validate()
