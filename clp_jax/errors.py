"""The exceptions for the user: a mistake to fix, a stopped run to resume."""


class UserError(Exception):
    """A mistake in the input, in one sentence: which file, key or tensor, and what to do.

    The command line prints the sentence without a traceback and exits with status 1.
    """


class RunStopped(Exception):
    """A training run that was asked to stop and has saved its state, from which it can resume.

    The command line prints the sentence and the command that resumes the run, and exits with
    status 0.
    """
