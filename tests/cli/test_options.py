"""Options classes become options of verbs, keys of files and choices of the window."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from humanpose.cli.main import VERBS, Verb
from humanpose.cli.options import changed, fields_of, with_options
from humanpose.errors import InputError
from humanpose.infer.options import InferenceOptions
from humanpose.types import check_options, option


@dataclass(frozen=True, slots=True)
class Inner:
    speed: float = option(1.5, "How fast.", min=0, max=9)
    mode: str | Path | None = option(None, "Which one.", choices=(None, "a", "b"), metavar="MODE")

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, slots=True)
class Outer:
    count: int = option(3, "How many.", min=1)
    inner: Inner = Inner()
    loud: bool = option(False, "Say it aloud.")
    folder: Path = option(Path("out"), "Where to.", flags=("--folder", "-f"))
    secret: int = option(0, "For Python only.", hidden=True)
    plain: int = 0


def run(*args: str, left_out: tuple[str, ...] = ()) -> tuple[int, str, Outer | None]:
    """Exit code, output and what the verb was given."""
    received = []

    @with_options(*left_out)
    def verb(name: str, options: Outer = Outer(count=4)) -> None:
        """Do it."""
        received.append((name, options))

    app = typer.Typer(add_completion=False)
    app.command()(verb)
    found = CliRunner().invoke(app, list(args))
    assert found.exception is None or isinstance(found.exception, SystemExit | InputError)
    return found.exit_code, found.output, received[0][1] if received else None


def test_a_verb_receives_the_options_given_and_else_the_defaults_of_its_signature() -> None:
    assert run("x")[2] == Outer(count=4)
    given = ("--count", "7", "--speed", "2", "--mode", "b", "--loud", "-f", "there")
    assert run("x", *given)[2] == Outer(7, Inner(2.0, "b"), True, Path("there"))
    assert run("x", "--no-loud")[2] == Outer(count=4)


@pytest.mark.parametrize(
    "args", [("--count", "0"), ("--count", "a"), ("--speed", "10"), ("--mode", "c")]
)
def test_a_value_outside_its_limits_is_refused(args: tuple[str, str]) -> None:
    code, _, options = run("x", *args)
    assert code != 0 and options is None


def test_what_is_hidden_or_left_out_is_no_option() -> None:
    for name in ("--secret", "--plain"):
        assert run("x", name, "1")[0] == 2
    assert run("x", "--count", "7", left_out=("count",))[0] == 2
    assert run("x", left_out=("count",))[2] == Outer(count=4)


def test_a_verb_states_options_of_its_own_that_may_be_required_or_repeated() -> None:
    received = []

    @with_options()
    def verb(
        into: Path = option(..., "Where to.", flags=("--into", "-i")),
        share: tuple[float, ...] = option((), "Which part. Repeatable.", max=1),
        quick: bool = option(False, "Do it fast.", flags=("--quick",)),
        inner: Inner = Inner(),
    ) -> None:
        """Do it."""
        received.append((into, share, quick, inner))

    app = typer.Typer(add_completion=False)
    app.command()(verb)
    runner = CliRunner()
    assert runner.invoke(app, ["-i", "x"]).exit_code == 0
    given = ["--share", "1", "--share", "0.5", "--quick", "--into", "y", "--mode", "a"]
    assert runner.invoke(app, given).exit_code == 0
    assert received == [
        (Path("x"), (), False, Inner()),
        (Path("y"), (1.0, 0.5), True, Inner(mode="a")),
    ]
    for wrong in ([], ["-i", "x", "--share", "2"], ["-i", "x", "--no-quick"]):
        assert runner.invoke(app, wrong).exit_code == 2
    assert "Inner" in runner.invoke(app, ["--help"]).output


def test_choices_hold_for_options_of_a_verb_too() -> None:
    app = typer.Typer()

    @app.command()
    @with_options()
    def verb(kinds: tuple[str, ...] = option((), "Which.", choices=("a", "b"))) -> None:
        typer.echo(" ".join(kinds))

    assert CliRunner().invoke(app, ["--kinds", "a", "--kinds", "b"]).output == "a b\n"
    refused = CliRunner().invoke(app, ["--kinds", "a", "--kinds", "c"]).exception
    assert isinstance(refused, InputError) and str(refused) == "kinds 'c' is not one of a, b"


def test_help_names_every_option_in_the_panel_of_its_class() -> None:
    text = run("--help")[1]
    for word in ("--count", "--speed", "--mode", "MODE", "--no-loud", "-f", "How fast.", "Inner"):
        assert word in text


def test_changes_reach_the_parts_and_name_what_is_wrong() -> None:
    made = changed(Outer(), {"mode": 1, "speed": 2, "folder": "x"} | {"mode": "a"})
    assert made == Outer(inner=Inner(2.0, "a"), folder=Path("x"))
    for changes, says in (
        ({"modus": "a"}, "modus: there is no such key"),
        ({"count": 1.5}, "count: write an integer, not 1.5"),
        ({"count": True}, "count: write an integer, not True"),
        ({"count": None}, "count: write an integer"),
        ({"loud": "yes"}, "loud: write true or false"),
        ({"mode": []}, "mode: write text"),
        ({"mode": "c"}, "mode 'c' is not one of a, b"),
        ({"speed": 10}, "speed must be at most 9"),
    ):
        with pytest.raises(InputError, match=says):
            changed(Outer(), changes)


def test_every_inference_option_reaches_the_verbs_that_run_networks() -> None:
    names = {field.name for field in fields_of(InferenceOptions())}
    assert names >= {"model", "detector", "tta", "threads"} and "keep_maps" not in names
    for verb in ("predict", "live"):
        where, text = VERBS["Poses"][verb]
        command = Verb(verb, where, text, "Poses").load()
        assert {parameter.name for parameter in command.params} >= names
