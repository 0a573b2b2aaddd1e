"""The `humanpose` command: its verbs, and one place where errors become one line."""

from __future__ import annotations

import inspect
import os
import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from humanpose import __version__
from humanpose.errors import EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_IO, HumanPoseError

# Panel of the help -> verb -> (where its function or sub-commands are, help in one line).
VERBS = {
    "Poses": {
        "predict": ("predict:predict", "Find people and their joints in pictures and videos."),
        "convert": ("convert:convert", "Write csv, json, coco, openpose, trc from a jsonl record."),
        "live": ("live.command:live", "Open a window with the live picture and the result."),
    },
    "Data and training": {
        "data": ("data:app", "Build packs of data sets, check their files, draw samples."),
        "train": ("train:train", "Train a network from a recipe."),
        "study": ("train:study", "Train variants of a recipe with several seeds and compare them."),
    },
    "Scores and speed": {
        "evaluate": ("evaluate:evaluate", "Score predictions and networks on data sets."),
        "bench": ("bench:bench", "Measure speed, memory and scores of networks on this machine."),
    },
    "Networks": {
        "export": ("export:export", "Write trained weights as ONNX."),
        "import": ("import_:import_weights", "Convert weights of another system."),
        "models": ("models:models", "List the built-in networks."),
        "info": ("models:info", "Show what is installed and what `auto` chooses here."),
    },
}


class Verb(TyperCommand):
    """A verb whose module is imported when it is called: no verb waits for another's imports."""

    def __init__(self, name: str, where: str, text: str, panel: str) -> None:
        super().__init__(name, help=text, rich_help_panel=panel)
        self._where = where

    def load(self) -> Any:
        """Import the verb and return its click command."""
        module, _, attribute = self._where.partition(":")
        found = getattr(import_module(f"humanpose.cli.{module}"), attribute)
        if not isinstance(found, typer.Typer):
            paragraphs = (inspect.getdoc(found) or "").split("\n\n")
            text = "\n\n".join(" ".join(each.split()) for each in paragraphs)
            app = typer.Typer(add_completion=False)
            app.command(self.name, help=text)(found)
            found = app
        return typer.main.get_command(found)

    def make_context(self, *arguments: Any, **named: Any) -> Any:
        """Parse the arguments as the imported verb does."""
        return self.load().make_context(*arguments, **named)


class _Verbs(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for panel, verbs in VERBS.items():
            for name, (where, text) in verbs.items():
                self.commands[name] = Verb(name, where, text, panel)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)  # in this order


app = typer.Typer(
    cls=_Verbs,
    name="humanpose",
    help="Find people in pictures and videos and tell where their joints are.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"humanpose {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and end."
    ),
    debug: bool = typer.Option(False, "--debug", help="Show the whole traceback of an error."),
) -> None:
    if debug:
        os.environ["HUMANPOSE_DEBUG"] = "1"


def main() -> None:
    """Run the command; every error ends as one line on stderr and its exit code."""
    try:
        app()
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)
    except HumanPoseError as error:
        _fail(f"error: {error}", error.exit_code)
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"error: {where}{error.strerror or error}", EXIT_IO)
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        _fail(
            f"internal error: {type(error).__name__}: {text} (run again with "
            "`humanpose --debug ...` and report what it prints)",
            EXIT_INTERNAL,
        )


def _fail(line: str, code: int) -> None:
    if os.environ.get("HUMANPOSE_DEBUG"):
        raise  # only ever called inside `except`
    sys.stderr.write(f"{line}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
