"""The exceptions that are for the user: a mistake to mend, a run to go on with."""


class UserError(Exception):
    """A mistake in the input, told in one sentence: which file, key or tensor, and what to do.

    The command line prints the sentence without a traceback and exits with status 1.
    """


class RunStopped(Exception):
    """A training was told to stop and has saved its state: resumed, it goes on from there.

    The command line prints the sentence with the command that goes on, and exits with status 0.
    """
