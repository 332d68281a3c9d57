"""The class of the commands of the command line."""

from collections import Counter
from typing import Any

from typer.core import TyperCommand, TyperOption


class Command(TyperCommand):
    """A command that refuses an option given twice instead of taking the last one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line; called by typer."""
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for option, times in Counter(given).items():
            single = isinstance(option, TyperOption) and not (option.multiple or option.is_flag)
            if single and times > 1:
                ctx.fail(f"{max(option.opts, key=len)} is given {times} times; give it once")
        return super().parse_args(ctx, args)
