"""The documentation site: it builds, its links hold, and it says what the program is."""

import ast
import re
import shutil
from pathlib import Path

import pytest
import yaml
from bundled import REPOSITORY, load_script
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort
from pages import DOCS, PAGES, blocks

from foldsmith.config.imports import RECIPES
from foldsmith.config.settings import Globals
from foldsmith.steps.registry import LIBRARY_TYPES

generated = load_script(DOCS / "generated.py")


def make_site(docs: Path, site: Path) -> None:
    config = load_config(
        str(REPOSITORY / "mkdocs.yml"), docs_dir=str(docs), site_dir=str(site), strict=True
    )
    config.plugins.on_startup(command="build", dirty=False)
    build(config)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    make_site(DOCS, folder)
    return folder


def test_generated_pieces_are_in_the_pages_and_up_to_date(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    found = []
    for page in DOCS.glob("*.md"):
        text = page.read_text()
        assert generated.filled(text) == text, f"{page.name}: run make reference"
        found += [piece["name"] for piece in generated.PIECE.finditer(text)]
    assert sorted(found) == sorted(generated.PIECES)


def test_the_site_has_every_page_and_the_generated_pieces(site):
    for page in DOCS.glob("*.md"):
        assert (site / f"{page.stem}.html").is_file()
    assert "Seed of weights, order, augmentation" in (site / "configuration.html").read_text()
    assert 'id="byol"' in (site / "parts.html").read_text()
    assert "-cri, --checkpoint" in (site / "command_line.html").read_text()


def test_nothing_is_loaded_from_elsewhere(site):
    loads = re.compile(
        r"<(?:script|img|iframe)[^>]+src=[\"']?(?:https?:)?//[^\s>]+"
        r"|<link[^>]+href=[\"']?(?:https?:)?//[^\s>]+"
        r"|@import[^;]+//|url\([\"']?(?:https?:)?//[^)]+"
    )
    for file in [*site.rglob("*.html"), *site.rglob("*.css")]:
        assert loads.findall(file.read_text()) == [], file


def test_broken_links_fail(tmp_path):
    docs = tmp_path / "docs"
    shutil.copytree(DOCS, docs, ignore=shutil.ignore_patterns("__pycache__"))
    broken = ["[a](none.md)", "[a](stages.md#none)", "[a](#none)", "![a](none.png)"]
    with (docs / "quickstart.md").open("a") as page:
        page.write("\n" + "\n\n".join(broken) + "\n")
    with pytest.raises(Abort, match=f"{len(broken)} warnings"):
        make_site(docs, tmp_path / "site")


def test_links_of_the_readme_lead_to_files_and_headings():
    for name in ("README.md", "README.ja.md", "competitions/atmacup11/README.md"):
        page = REPOSITORY / name
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if link.startswith("http"):
                continue
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), f"{name}: {link}"
            if anchor:
                headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
                slugs = [
                    re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings
                ]
                assert anchor in slugs, f"{name}: {link}"


def test_every_part_is_described():
    listed = {name: part for _, types in generated.registered() for name, part in types.items()}
    assert listed == LIBRARY_TYPES
    text = generated.PIECES["types"]()
    headings = re.findall(r"^### ([\w-]+)$", text, re.MULTILINE)
    assert sorted(headings) == sorted(LIBRARY_TYPES)
    for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        name, _, rest = section.partition("\n")
        assert len(rest.strip().splitlines()[0]) > 10, f"{name}: has no description"
        missing = re.findall(r"^\| `(\w+)` \|  \|", rest, re.MULTILINE)
        assert missing == [], f"{name}: {missing} are not explained"


def test_every_key_is_described():
    # A key that the docstring leaves out is an error of the table itself.
    assert generated.PIECES["globals"]().count("\n") == len(Globals.model_fields) + 1
    assert "| `globals/n_bins` | Bins of a label distribution. | `int`, at least 2 | `32` |" in (
        generated.PIECES["globals"]()
    )
    assert "| `folds` | How to split. |" in generated.PIECES["project"]()
    for name in ("folds", "continuous", "auxiliary", "ensemble"):
        assert "**required**" in generated.PIECES[name]() or name == "folds"


def test_the_commands_are_shown_as_their_help_prints_them(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = generated.PIECES["commands"]()
    for command in ([], ["train"]):
        assert cli(tmp_path, *command, "--help").stdout.strip() in text


def test_every_recipe_says_when_to_take_it():
    table = (DOCS / "recipes.md").read_text()
    for recipe in RECIPES.glob("*.yml"):
        assert f"`{recipe.name}`" in table, recipe.name
        assert recipe.read_text().startswith("# "), recipe.name


def test_names_in_the_pages_exist():
    """Recipes, keys of globals and types that the text or an example mentions."""
    recipes = {path.name for path in RECIPES.glob("*.yml")}
    for page in [*PAGES, REPOSITORY / "README.ja.md"]:
        text = page.read_text()
        assert set(re.findall(r"foldsmith:(\w+\.yml)", text)) <= recipes, page.name
        if page.name != "from_2021.md":  # which has the old names as well
            keys = set(re.findall(r"\bglobals/([a-z_]+)\b", text))
            assert keys <= Globals.model_fields.keys(), page.name
        own = set(re.findall(r'TYPES = \{"(\w+)"', text)) | {"NAME", "MyLoss", "MyMix"}
        for block in blocks(page):
            if block.language == "yaml":
                yaml.safe_load(block.text)
                types = set(re.findall(r"\btype: (\w+)", block.text))
                assert types <= LIBRARY_TYPES.keys() | own, page.name


def printable() -> list[str]:
    """Return every text that the source can print, ``…`` for what is filled in."""
    texts = []
    for file in (REPOSITORY / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "…" for v in node.values]
                texts.append(re.sub("…+", "…", "".join(parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


def test_quoted_messages_are_those_of_the_program():
    known = printable()
    messages = [block.text.strip() for block in blocks(DOCS / "faq.md") if block.language == "text"]
    assert len(messages) > 20
    for quoted in messages:
        # The handler of the command line puts the level before the message.
        message = quoted.removeprefix("warning: ")
        assert len(message.replace("…", "")) > 12
        assert any(message in text for text in known), message
