"""What all stages share: how arguments are read, how a stage ends, and what its exit code says."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum

from seamless_pr.pipelines.console import tolerant_console
from seamless_pr.pipelines.paths import settle_paths
from seamless_pr.pipelines.signals import Terminated, sigterm_raises
from seamless_pr.structures.faults import first_line, is_want_of_memory, quoted, shortened


def finite(text: str) -> float:
    """Type of options that are numbers; `float` takes nan and inf, too."""
    with suppress(ValueError):
        if math.isfinite(number := float(text)):
            return number
    raise argparse.ArgumentTypeError(f"must be a number; got {quoted(text)}")


class ExitCode(IntEnum):
    """What a stage tells the program that started it."""

    DONE = 0
    FAILED = 1
    WRONG_ARGUMENTS = 2
    SOME_FAILED = 3
    INTERRUPTED = 130
    TERMINATED = 143


EXIT_CODES = """\
exit codes: 0 done; 1 not done, or faults were found: the message says which; 2 wrong arguments;
3 done, but some images failed; 130 stopped by Ctrl-C; 143 stopped by SIGTERM.
"""

# A user's mistake, or the machine's; everything else is a fault of the program, with a traceback.
EXPECTED_ERRORS = (OSError, ValueError, FloatingPointError, MemoryError, ImportError)


@dataclass(frozen=True)
class Stage:
    """A stage of the work as a command.

    Attributes:
        doc: docstring of its module: a sentence for `--help`, then what stands below the options.
        add_options: declares the options.
        run: does the work; returns the exit code, None for 0.
        check: fills in what follows from other options, and refuses by `parser.error` what does
            not go together.
        inputs, outputs: options that hold paths, see `settle_paths`.
        has_commands: True if the first argument names a sub-command.
        when_stopped: what a user should know after Ctrl-C.
    """

    doc: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]
    check: Callable[[argparse.ArgumentParser, argparse.Namespace], None] | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ("output",)
    has_commands: bool = False
    when_stopped: str = "the same command goes on from here"

    def parser(self, prog: str | None = None) -> argparse.ArgumentParser:
        """The options; `prog` is the name of the command, that of the script if None."""
        summary, _, rest = self.doc.partition("\n\n")
        parser = argparse.ArgumentParser(
            prog=prog,
            description=summary,
            epilog=f"{rest.rstrip()}\n\n{EXIT_CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_options(parser)
        return parser

    def main(self, arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
        """Runs the command; returns its exit code.

        Args:
            arguments: of the command line; None: those of this process.
            prog: see `parser`.
        """
        with tolerant_console(), sigterm_raises() as is_terminated:
            parser = self.parser(prog)
            # Options may stand between arguments, which argparse grants without sub-commands only.
            parse = parser.parse_args if self.has_commands else parser.parse_intermixed_args
            options = parse(arguments)
            if self.check is not None:
                self.check(parser, options)
            try:
                settle_paths(options, self.inputs, self.outputs)
                return int(self.run(options) or ExitCode.DONE)
            except EXPECTED_ERRORS as error:
                print(f"error: {shortened(str(error)) or type(error).__name__}", file=sys.stderr)
                return ExitCode.FAILED
            except RuntimeError as error:
                if not is_want_of_memory(error):
                    raise
                print(f"error: not enough memory ({first_line(error)})", file=sys.stderr)
                return ExitCode.FAILED
            except KeyboardInterrupt as stop:
                terminated = isinstance(stop, Terminated) or is_terminated()
                reason = "SIGTERM" if terminated else "Ctrl-C"
                print(f"stopped by {reason}; {self.when_stopped}", file=sys.stderr)
                return ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED
