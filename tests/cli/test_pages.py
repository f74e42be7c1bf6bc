"""The pages for people: every link leads somewhere, every page can be found, and pictures can be read everywhere."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

_TREE = Path(__file__).parents[2]
_DOCS = _TREE / "docs"
_PAGES = sorted([*_TREE.glob("*.md"), *_DOCS.rglob("*.md")])
_PICTURES = sorted((_DOCS / "pictures").glob("*.svg"))
_LONGEST_README = 80
"""Lines: one page."""
_SVG = "{http://www.w3.org/2000/svg}"


def links(page: Path) -> list[tuple[str, str]]:
    """Returns the links to files of this project: path and anchor. Code is left out."""
    text = re.sub(r"```.*?```|`[^`\n]*`(?!\])", "", page.read_text("utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [tuple(f"{each}#".split("#")[:2]) for each in targets if "://" not in each]  # type: ignore[misc]


def anchors(page: Path) -> set[str]:
    """Returns the anchors that GitHub and most other renderers give the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_TREE)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        assert not anchor or target.suffix != ".md" or anchor in anchors(target), f"{path}#{anchor}"


def test_the_index_names_every_page() -> None:
    named = {(_DOCS / path).resolve() for path, _ in links(_DOCS / "README.md")}
    assert {page for page in _DOCS.glob("*.md") if page.name != "README.md"} <= named


def test_the_readme_is_one_page_that_shows_one_picture() -> None:
    text = (_TREE / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= _LONGEST_README
    assert text.count("![") == 1


@pytest.mark.parametrize("picture", _PICTURES, ids=lambda picture: picture.name)
def test_a_picture_is_text_on_its_own_background(picture: Path) -> None:
    root = ET.parse(picture).getroot()
    width, height = root.get("viewBox", "").split()[2:]
    background = next(element for element in root if element.tag == f"{_SVG}rect")
    assert (background.get("width"), background.get("height")) == (width, height), "readable on a dark page too"
    assert background.get("fill") == "#ffffff"
    assert root.findtext(f"{_SVG}title")
    assert root.findtext(f"{_SVG}desc")
    assert len(root.findall(f".//{_SVG}text")) > 5
    source = picture.read_text("utf-8")
    assert "href" not in source, "nothing is loaded from elsewhere"
    assert any(f"pictures/{picture.name})" in page.read_text("utf-8") for page in _PAGES)
