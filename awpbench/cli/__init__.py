"""The command line: flags to configs, progress, tables, exit codes. Importable without torch."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer

import awpbench
from awpbench.cli import common
from awpbench.cli.compare import compare_command
from awpbench.cli.data import app as data_app
from awpbench.cli.eval import eval_command
from awpbench.cli.inspect import inspect_command
from awpbench.cli.leaderboard import app as leaderboard_app
from awpbench.cli.leaderboard_rows import ROW_COMMANDS
from awpbench.cli.plot import app as plot_app
from awpbench.cli.report import report_command
from awpbench.cli.reproduce import reproduce
from awpbench.cli.robustbench import EXCHANGE, export_app, import_app
from awpbench.cli.show import doctor, list_command
from awpbench.cli.train import resume, train
from awpbench.cli.verify import verify_command
from awpbench.cli.zoo import app as zoo_app
from awpbench.errors import AwpbenchError, InputError, UsageError

MISUSE: type[Exception] = typer.BadParameter.__mro__[1]  # click's UsageError; typer may bring a click of its own

app = typer.Typer(
    name="awpbench",
    help="Train, attack and rank robust image classifiers.",
    epilog="Every command takes --debug, which shows the traceback of an error.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train)
app.command("resume")(resume)
app.command("eval")(eval_command)
app.command("verify")(verify_command)
app.command("compare")(compare_command)
app.command("report")(report_command)
app.command("inspect")(inspect_command)
app.command("reproduce")(reproduce)
for command in ROW_COMMANDS:
    leaderboard_app.command()(command)
app.add_typer(leaderboard_app, name="leaderboard")
app.add_typer(zoo_app, name="zoo")
app.add_typer(data_app, name="data")
app.add_typer(plot_app, name="plot")
app.command("list")(list_command)
app.command("doctor")(doctor)
leaderboard_app.add_typer(import_app, name="import")
leaderboard_app.add_typer(export_app, name="export")
for exchange in EXCHANGE:
    leaderboard_app.command()(exchange)


def _version(asked: bool) -> None:
    if asked:
        common.print_text(f"awpbench {awpbench.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _report_misuse(error: Any) -> int:
    """Report what click says of the command line; where it showed the help instead, it says nothing."""
    if message := error.format_message():
        where = error.ctx.command_path if error.ctx else "awpbench"
        common.report(UsageError(message, f"See: {where} --help"))
    return UsageError.exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        code = app(args=[word for word in words if word != "--debug"], prog_name="awpbench", standalone_mode=False)
        if code == 130:  # typer's answer to Ctrl-C
            common.note("stopped")
        return code if isinstance(code, int) else 0
    except MISUSE as error:
        return _report_misuse(error)
    except (KeyboardInterrupt, typer.Abort):
        common.note("stopped")
        return 130
    except AwpbenchError as error:
        if debug:
            traceback.print_exc()
        common.report(error)
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        if debug:
            traceback.print_exc()
        what = f"{error.filename or 'a file'}: {error.strerror or error}"
        common.report(InputError(what, "Check the path, its permissions and the space left there."))
        return InputError.exit_code
    except Exception as error:
        if debug:
            traceback.print_exc()
        what = f"{type(error).__name__}: {error}"
        common.report(AwpbenchError(what, "This is a bug in awpbench, or in a model given to it; --debug shows where."))
        return 1
