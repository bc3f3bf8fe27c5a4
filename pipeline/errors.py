"""Errors a user can act on, each with the exit code of the command that ends with it."""

from __future__ import annotations


class KinecloudError(Exception):
    """A problem that is reported as one message, without a traceback."""

    exit_code = 1


class UserError(KinecloudError):
    """Bad configuration or input: the message names file, field, value and remedy."""

    exit_code = 2


class TooManyFailures(KinecloudError):
    """More failures or unreadable inputs than the failure budget allows."""

    exit_code = 3


class Refused(KinecloudError):
    """A stored result was made with another configuration; the message lists the keys that differ."""

    exit_code = 4
