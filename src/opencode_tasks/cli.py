"""`opencode-tasks COMMAND …`: argv to one command's module; the only place that catches and exits."""

import argparse
import gc
import io
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from opencode_tasks import __version__
from opencode_tasks.commands import MODULES, Bars, Result, Table
from opencode_tasks.errors import TaskError, UsageError
from opencode_tasks.printable import printable
from opencode_tasks.values import replace

_BUG, _INTERRUPTED, _PIPE_CLOSED = 3, 130, 141


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"{self.prog} --help")


class _Formatter(argparse.HelpFormatter):
    """With a width of its own: argparse makes one for every argument, and would load `shutil` for it."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_width())


@cache
def _width() -> int:
    with suppress(ValueError, OSError):
        return int(os.environ["COLUMNS"]) - 2 if "COLUMNS" in os.environ else os.get_terminal_size().columns - 2
    return 78


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 1 refused or failed, 2 usage, 3 our bug, 130 interrupted."""
    _fill_standard_streams()
    try:
        result, as_json = _outcome(sys.argv[1:] if argv is None else list(argv))
        _print(result, as_json)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has seen enough.
        _discard_stdout()
        return _PIPE_CLOSED
    except OSError as e:
        _discard_stdout()
        with suppress(OSError):
            print(f"opencode-tasks: the output could not be written: {e.strerror}", file=sys.stderr)
        return 1
    return result.exit_code


def _fill_standard_streams() -> None:
    """`… <&-`: without this the first file we open would become our stdin or stdout.

    Python has set the stream of a closed descriptor to None, and would print what is
    meant for such a stderr to stdout.
    """
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(fd, mode, closefd=False))
    _encode(sys.stdout.encoding)


def _encode(encoding: str) -> None:
    # A path that is not UTF-8 has surrogates, which this prints as JSON escapes them.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")


def _discard_stdout() -> None:
    """What is still buffered would be flushed, and fail again, at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _outcome(argv: Sequence[str]) -> tuple[Result, bool]:
    """What is to be printed, and whether as JSON; the one catch of everything that a command raises."""
    as_json = "--json" in (argv[: argv.index("--")] if "--" in argv else argv)
    try:
        return _run(argv)
    except TaskError as e:
        return _failed(e, as_json), as_json
    except KeyboardInterrupt:
        print("opencode-tasks: interrupted", file=sys.stderr)
        return Result(exit_code=_INTERRUPTED), False
    except SystemExit as e:  # argparse has printed its help
        return Result(exit_code=int(e.code or 0)), False
    except BrokenPipeError:
        raise
    except Exception:
        return _bug(as_json), as_json


def _run(argv: Sequence[str]) -> tuple[Result, bool]:
    if not argv or argv[0] in ("-h", "--help", "help"):
        return Result(text=_overview(), exit_code=0 if argv else 2), False
    if argv[0] in ("-V", "--version"):
        return Result(text=f"opencode-tasks {__version__}"), False
    name = argv[0]
    if name not in MODULES:
        from difflib import get_close_matches

        near = get_close_matches(name, MODULES, n=1)
        raise UsageError(
            f"There is no command {name!r}",
            hint=f"did you mean {near[0]}?" if near else "opencode-tasks --help",
        )
    module = import_module(f"opencode_tasks.commands.{MODULES[name]}")
    gc.freeze()
    gc.enable()  # see __main__
    parser = _Parser(
        prog=f"opencode-tasks {name}", description=module.HELP, allow_abbrev=False, formatter_class=_Formatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    module.configure(parser)
    args = parser.parse_args(argv[1:])
    try:
        result: Result = module.run(args)
    except UsageError as e:
        e.hint = e.hint or f"{parser.prog} --help"
        raise
    finally:
        _close()
    return result, args.json


def _close() -> None:
    here = sys.modules.get("opencode_tasks.commands.here")
    if here is not None:
        here.close()


def _print(result: Result, as_json: bool) -> None:
    if as_json:
        if result.document is not None:
            _encode("utf-8")
            print(json.dumps(result.document, ensure_ascii=False, indent=2))
        return
    if result.table is not None:
        _print_table(result.table)
    _print_bars(result.bars)
    if result.text:
        print(_safe(result.text))


def _print_table(table: Table) -> None:
    if not table.rows:
        print(table.empty)
    elif not sys.stdout.isatty():
        for row in table.rows:
            print("\t".join(map(_cell, row)))
    else:
        from rich.console import Console
        from rich.table import Table as Drawn
        from rich.text import Text

        drawn = Drawn(*table.columns, box=None, pad_edge=False)
        for row in table.rows:
            drawn.add_row(*(Text(_cell(cell)) for cell in row))
        Console().print(drawn)


_BAR = 24


def _print_bars(groups: Sequence[Bars]) -> None:
    """Each group to its own scale. In a pipe the same without the bars."""
    drawn = sys.stdout.isatty()
    wide = max((len(name) for group in groups for name in group.sizes), default=0)
    for group in groups:
        print(_safe(group.title))
        most = max((size for size, _ in group.sizes.values()), default=0)
        for name, (size, said) in group.sizes.items():
            bar = "█" * round(_BAR * size / most) if most else ""
            print(f"  {_safe(name):{wide}}  {bar:{_BAR}}  {said}" if drawn else f"  {_safe(name)}\t{said}")


def _cell(text: str) -> str:
    """On one line, whatever is in it."""
    return printable(text.replace("\n", " "))


def _safe(text: str) -> str:
    """Titles, branches and paths may come from anybody."""
    return printable(text, keep="\n\t")


def _overview() -> str:
    lines = ["usage: opencode-tasks COMMAND …", "", "commands:"]
    for name, module in MODULES.items():
        lines.append(f"  {name:20} {import_module(f'opencode_tasks.commands.{module}').HELP}")
    return "\n".join([*lines, "", "opencode-tasks COMMAND --help tells the rest."])


def _failed(e: TaskError, as_json: bool) -> Result:
    if as_json:
        error = {"code": e.code, "message": e.message, "hint": e.hint}
        return Result({"error": error}, exit_code=e.exit_code)
    print(f"opencode-tasks: {_safe(e.message)}", file=sys.stderr)
    if e.hint:
        print(f"  {_safe(e.hint)}", file=sys.stderr)
    return Result(exit_code=e.exit_code)


def _bug(as_json: bool) -> Result:
    path = _bug_log()
    message = "This is a bug of opencode-tasks"
    where = f"please report it with {path}" if path else "please report it with the traceback above"
    if path is None:
        import traceback

        traceback.print_exc()
    return replace(_failed(TaskError(message, hint=where, code="bug"), as_json), exit_code=_BUG)


def _bug_log() -> Path | None:
    with suppress(Exception):
        from opencode_tasks.git.discovery import find
        from opencode_tasks.store.layout import Layout

        root = Layout(find(Path.cwd()).common_dir)
        path = root.errors_log if root.root.is_dir() else Path.home() / ".opencode-tasks-errors.log"
        import traceback

        with path.open("a") as f:
            f.write(f"{' '.join(sys.argv)}\n")
            traceback.print_exc(file=f)
        return path
    return None
