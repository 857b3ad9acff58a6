"""The error that mistakes of the user raise."""


class UserError(Exception):
    """Invalid input: a key, a value, a name, a file or a combination of them.

    The message is one sentence that says what is wrong, where, and what would be right. ``run.py`` and the scripts
    print it without a traceback and exit with code 2.
    """


def one_of(what: str, name: str, known: list[str]) -> UserError:
    """The error for an unknown ``name`` of the kind ``what``, with a suggestion and the known names."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    return UserError(f"unknown {what} '{name}'{hint}; known: {', '.join(known)}")
