"""Every check that can turn red has a page that says what to do then."""

import re
from pathlib import Path

import dagster as dg

from lens_pipeline.definitions import defs

PAGE = Path(__file__).parents[2] / "docs" / "red-checks.md"


def declared() -> set[tuple[str, str]]:
    keys = defs.resolve_asset_graph().asset_check_keys
    return {(key.asset_key.path[-1], key.name) for key in keys}


def described() -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for part in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        for heading in re.findall(r"^### (.+)$", body, flags=re.MULTILINE):
            names = re.sub(r" \(.*\)$", "", heading).split(", ")
            found |= {(asset, name) for asset in title.split(", ") for name in names}
    return found


def test_every_declared_check_has_its_section_under_its_asset() -> None:
    assert isinstance(defs, dg.Definitions)
    assert declared()
    assert sorted(declared() - described()) == []


def test_dagsters_page_points_from_each_check_to_its_section() -> None:
    graph = defs.resolve_asset_graph()
    for key in graph.asset_check_keys:
        said = graph.get_check_spec(key).description
        assert said == f"What to do when it is red: docs/red-checks.md, {key.name}."


def test_the_page_describes_no_check_that_does_not_exist() -> None:
    names = {name for _, name in declared()}
    assert sorted(name for _, name in described() if name not in names) == []
