"""humanpose data: its verbs"""

from __future__ import annotations

import typer

from humanpose.cli import data_build, data_check, data_show

app = typer.Typer(
    help="Data sets: check their files, build packs, look at samples.", no_args_is_help=True
)
app.command("check")(data_check.check)
app.command("show")(data_show.show)
app.command("build")(data_build.build)
