"""The one exception that means: the user can mend this."""

from __future__ import annotations


class UserError(Exception):
    """Something the user asked for cannot be done.

    The message is one line that names the value, what was expected and the remedy. The command line prints it
    without a traceback and exits with code 2.
    """
