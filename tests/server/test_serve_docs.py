"""docs/serve.md says what there is."""

from __future__ import annotations

import re

from conftest import REPOSITORY, RunHermes
from prometheus_client.parser import text_string_to_metric_families
from server_rig import served

from hermes_cli.engine.protocol import Done, EngineStats
from hermes_cli.server.metrics import Metrics
from hermes_cli.server.settings import ServerKeys, ServerSettings

PAGE = (REPOSITORY / "docs" / "serve.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in PAGE.splitlines() if line.startswith("|")]
OF_THE_COMMAND = {"--config", "--print-config", "--json", "--quiet", "--no-color", "--verbose", "--help"}


def test_every_setting_is_in_the_table_with_its_default() -> None:
    table = {row[0].strip("`"): row for row in ROWS if len(row) == 4 and row[0].startswith("`")}
    assert table.keys() == set(ServerKeys.__struct_fields__)
    plain = ServerSettings()
    for name in ("host", "port", "max_queue", "max_body", "timeout", "grace", "load_timeout", "header_timeout"):
        assert table[name][2] == str(getattr(plain, name)), name
    for name in ("body_timeout", "write_timeout", "max_connections"):
        assert table[name][2] == str(getattr(plain, name)), name


def test_every_flag_is_there(hermes: RunHermes) -> None:
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", hermes("serve", "--help").stdout))
    documented = set(re.findall(r"--[a-z][a-z-]+", PAGE))
    assert flags - OF_THE_COMMAND <= documented
    assert "--print-config" in documented


def test_every_route_is_there() -> None:
    with served(ServerSettings(ollama=True)) as running:
        described = running.get("/openapi.json").json["paths"]
    for path, methods in described.items():
        for method in methods:
            assert f"`{method.upper()} {path}`" in PAGE


def test_every_metric_is_there() -> None:
    metrics = Metrics()
    metrics.answered("GET", "/", 200, 1)
    metrics.first_token("demo", 1)
    metrics.generated("demo", Done("stop", 1, 0, 2, 1, 1))
    text = metrics.exposition({"demo": EngineStats()}, (), 0).decode()
    names = {family.name + "_total" * (family.type == "counter") for family in text_string_to_metric_families(text)}
    assert names == set(re.findall(r"`(hermes_[a-z_]+)`", PAGE))
