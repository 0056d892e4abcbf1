"""The page that lists why a galaxy's pixels are refused, held against the code that refuses them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "survey-images.md"
# These refuse sources, not cutouts, and stand in the page's text.
OF_SOURCES = "hst_sources.py"


def reasons_in(path: Path) -> Iterator[str]:
    """Every word that stands for the reason of a `CutoutRefusedError`, either of a choice of two."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "CutoutRefusedError":
            words = [each.value for each in ast.walk(node.args[0]) if isinstance(each, ast.Constant)]
            strings = [word for word in words if isinstance(word, str)]
            assert strings, f"{path.name}:{node.lineno} gives a reason that isn't written there"
            yield from strings


def test_every_reason_that_a_cutout_is_refused_for_stands_in_the_table_and_no_other() -> None:
    files = [path for path in (ROOT / "lens_pipeline").rglob("*.py") if path.name != OF_SOURCES]
    in_code = {reason for path in files for reason in reasons_in(path)}
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", PAGE.read_text(), flags=re.MULTILINE)
    assert len(in_code) > 15
    assert {reason for reason, _, _ in rows} == in_code


def test_every_reason_that_a_source_is_refused_for_is_explained() -> None:
    in_code = set(reasons_in(ROOT / "lens_pipeline" / "survey" / OF_SOURCES))
    assert {reason for reason in in_code if f"`{reason}`" not in PAGE.read_text()} == set()
