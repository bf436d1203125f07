"""The one exception that is the user's to mend."""


class UserError(Exception):
    """A mistake in the input, told in one sentence: which file, key or tensor, and what to do.

    The command line prints the sentence without a traceback and exits with status 1.
    """
