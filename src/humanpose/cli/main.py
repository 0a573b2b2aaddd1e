"""The `humanpose` command: its verbs, and one place where errors become one line."""

from __future__ import annotations

import os
import sys

import typer

from humanpose import __version__
from humanpose.cli import bench, data, evaluate, export, import_, models, predict, study, train
from humanpose.cli.live import command
from humanpose.errors import EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_IO, HumanPoseError

app = typer.Typer(
    name="humanpose",
    help="Find people in pictures and videos and tell where their joints are.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("predict")(predict.predict)
app.command("live")(command.live)
app.command("train")(train.train)
app.command("study")(study.study)
app.command("evaluate")(evaluate.evaluate)
app.command("bench")(bench.bench)
app.command("export")(export.export)
app.command("import")(import_.import_weights)
app.add_typer(data.app, name="data")
app.command("models")(models.models)
app.command("info")(models.info)


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
