"""The errors that users see: one class per exit code, a message that says what to do instead.

The command line prints the message of a `PanollavaError` without a traceback and exits with its
`exit_code` (SPEC: 1 the work failed, 2 wrong usage or configuration).
"""


class PanollavaError(Exception):
    """Base of every error that is meant for a user."""

    exit_code = 1


class ConfigError(PanollavaError):
    """A configuration file, key, name or command-line option is wrong."""

    exit_code = 2


class DataError(PanollavaError):
    """A CSV file or a panorama cannot be used."""


class FileChanged(DataError):
    """A file is not the one that a job was planned with: `what` names it, `how` says what became of it."""

    def __init__(self, what: object, how: str = "changed") -> None:
        super().__init__(f"{what} {how} after this job was planned. Nothing of it was kept: run the same command again")


class CheckpointError(PanollavaError):
    """A stage folder or a checkpoint is missing, broken or does not fit."""


class TrainingError(PanollavaError):
    """A stage cannot go on: non-finite loss, out of memory, state in use."""


class EvaluationError(PanollavaError):
    """Predictions cannot be made or scored."""


class ProtocolError(EvaluationError, ConfigError):
    """Predictions cannot be scored by the protocol that was asked for."""


class PromptTooLong(PanollavaError, ValueError):
    """A prompt and its answer exceed the language model's context."""


class StorageError(PanollavaError):
    """A file cannot be written: a full disk, a read-only folder, no permission."""


class JobError(PanollavaError):
    """A job of the DAG ended for want of memory."""


EXPORT_REMEDY = "Restore the file, or export the model again."
"""What to do about a broken file of an exported model."""
