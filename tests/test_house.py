"""The house stays in order: sizes, docstrings, start-up, documents that tell the truth."""

import ast
import doctest
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "humanpose"
FILES = sorted(SOURCE.rglob("*.py"))
DOCS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


# Lines that each room may have (`wc -l`). A ceiling may be lowered, or moved to another room.
CEILINGS = {
    "api": 280,
    "ground": 2254,
    "infer": 2226,
    "media": 1997,
    "nets": 1770,
    "checkpoints": 1526,
    "data": 2864,
    "train": 1341,
    "evaluate": 2366,
    "export": 599,
    "lab": 2018,
    "cli": 2592,
}


def room_of(path: Path) -> str:
    """The folder of a module; top-level modules are the ground, but for the API."""
    parts = path.relative_to(SOURCE).parts
    if len(parts) > 1:
        return parts[0]
    return "api" if parts[0] in ("__init__.py", "api.py") else "ground"


def lines_of(path: Path) -> int:
    return path.read_text("utf-8").count("\n")


def test_no_file_is_too_long_to_read_in_one_sitting():
    assert {str(path): n for path in FILES if (n := lines_of(path)) > 400} == {}


def test_no_room_outgrows_its_ceiling():
    rooms = dict.fromkeys(CEILINGS, 0)
    for path in FILES:
        rooms[room_of(path)] += lines_of(path)
    assert {room: n for room, n in rooms.items() if n > CEILINGS[room]} == {}


def test_no_modules_import_each_other_in_a_circle():
    """Imports inside functions count, those for type checking alone do not."""
    modules = {}
    for path in FILES:
        parts = ("humanpose", *path.relative_to(SOURCE).with_suffix("").parts)
        modules[".".join(parts).removesuffix(".__init__")] = path
    graph = {name: imported_by(path, set(modules)) - {name} for name, path in modules.items()}
    while leaves := [name for name, below in graph.items() if not below & set(graph)]:
        for name in leaves:
            del graph[name]
    while tops := set(graph) - set().union(*graph.values()):
        for name in tops:
            del graph[name]
    assert {name: below & set(graph) for name, below in graph.items()} == {}


def imported_by(path: Path, modules: set[str]) -> set[str]:
    """Those of `modules` that a file imports at run time."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in set(ast.walk(tree)) - typing_only:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inside & modules or {str(node.module)}
    return found & modules


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(SOURCE).as_posix())
def test_functions_are_short_and_public_things_documented(path):
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree), f"{path.name} does not say what it is for"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            short = isinstance(node, ast.FunctionDef) and node.name == "forward"
            assert short or ast.get_docstring(node) or _is_inner(tree, node), node.name
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert length_of(node) <= 80, node.name


def length_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the last one, without the docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function):
        text = function.body[0]
        lines -= (text.end_lineno or text.lineno) - text.lineno + 1
    return lines


def _is_inner(tree: ast.Module, node: ast.AST) -> bool:
    """Whether `node` stands inside a function, or in a private class."""
    for outer in ast.walk(tree):
        private = isinstance(outer, ast.ClassDef) and outer.name.startswith("_")
        holds = isinstance(outer, ast.FunctionDef) or private
        if holds and outer is not node and any(inner is node for inner in ast.walk(outer)):
            return True
    return False


def commands() -> dict[str, Any]:
    """Every verb and sub-command, "predict" or "data show", and its click command."""
    from humanpose.cli.main import app

    found = {}
    for name, verb in typer.main.get_command(app).commands.items():
        command = verb.load()
        parts = getattr(command, "commands", {"": command})
        found |= {f"{name} {part}".strip(): each for part, each in parts.items()}
    return found


def test_documents_name_every_verb_and_every_recipe():
    text = "\n".join(path.read_text("utf-8") for path in DOCS)
    for name in commands():
        assert f"humanpose {name}" in text, name
    for recipe in (ROOT / "recipes").glob("*.*"):
        assert f"recipes/{recipe.name}" in text, recipe.name


def test_documents_name_every_option_of_every_verb_in_its_chapter():
    chapters = (ROOT / "docs" / "commands.md").read_text("utf-8").split("\n## humanpose ")
    for name, command in commands().items():
        verb, *_ = name.split()
        (text,) = [part for part in chapters if part.split(maxsplit=1)[0] == verb]
        for parameter in command.params:
            for option in (*parameter.opts, *parameter.secondary_opts):
                if option.startswith("--") and option != "--help":
                    assert f"`{option}`" in text, f"{name} {option}"


def test_every_option_has_a_help_text():
    for name, command in commands().items():
        assert command.help, name
        for parameter in command.params:
            assert parameter.help, f"{name} {parameter.name}"


def test_links_in_documents_lead_somewhere():
    for path in DOCS:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text("utf-8")):
            if not target.startswith("http"):
                assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_files_that_documents_name_exist():
    for path in DOCS:
        for name in re.findall(
            r"`((?:src|tests|docs|recipes|benchmarks)/[\w./-]+)`", path.read_text("utf-8")
        ):
            assert (ROOT / name).exists(), f"{path.name}: {name}"


def test_the_readmes_python_runs(photo, tmp_path, monkeypatch):
    """Each ```python block, on a real photograph and video under the names that it uses."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    assert blocks
    (tmp_path / "photo.jpg").write_bytes(photo.read_bytes())
    video = ROOT.parent / "shared" / "data" / "videos" / "dance.mp4"
    (tmp_path / "walk.mp4").write_bytes(video.read_bytes())
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(SOURCE).as_posix())
def test_examples_in_docstrings_run(path):
    if ">>>" not in path.read_text("utf-8"):
        return
    module = ".".join(["humanpose", *path.relative_to(SOURCE).with_suffix("").parts])
    __import__(module)
    assert doctest.testmod(sys.modules[module]).failed == 0


def test_no_machine_is_named_in_what_is_published():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    for name in tracked:
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".yaml", ".txt", "") and path.is_file():
            text = path.read_text("utf-8", errors="ignore")
            assert not re.search(r"(?<![\w.])/(work|root|tmp/bash)/", text), name


@pytest.mark.real_data
@pytest.mark.parametrize(("options", "most"), [((), (8, 18)), (("--predict",), (22, 200))])
def test_a_call_goes_through_few_files(data: Path, options: tuple[str, ...], most: tuple[int, int]):
    photo = data / "coco" / "images" / "000000000036.jpg"  # of one person
    script = [sys.executable, str(ROOT / "benchmarks" / "trace_call.py"), str(photo), *options]
    printed = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+) files, (\d+) file changes", printed)
    assert found is not None, printed
    files, changes = map(int, found.groups())
    assert files <= most[0] and changes <= most[1], printed
