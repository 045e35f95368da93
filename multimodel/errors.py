"""Every error this package raises on purpose.

* MultimodelError               .hint: what the person should do next
  x ConfigError                 fix the setup, then try again
    - InvalidModelId            the text is not a model id, or names no backend
    - InvalidParameter          a sampling parameter is out of its range
    - InvalidSetting            the environment or .env holds something unusable
    - MissingKey                a service needs a key that is not set
    - MissingDependency         a Python package is not installed
    - InvalidName               a name that cannot be a folder's, or that is taken
  x DataError                   the data set cannot be read or trained on
  x FileRefused                 a file cannot go with a prompt
  x TrainingError               a training run did not reach its end
    - Diverged                  the loss is not a number any more
    - DiskFull                  no room for the next checkpoint or the model
  x BatchError                  a batch of prompts cannot be asked, or its folder not read or written
  x StoreError                  conversations cannot be kept or read
    - NotKept                   the folder or disk does not take them: full, locked, not writable
    - NewerDatabase             their file was written by a newer version of the app
    - ForeignFile               a file to import is no conversation of ours, or is damaged
  x LoadError                   the model could not be brought into memory
    - ModelNotFound             no such repository, file or folder
    - GatedModel                the licence is not accepted, or the repository is private
    - BrokenFile                the file is damaged, incomplete or of an unsafe kind
    - NotEnoughMemory           it does not fit
      . TooLarge                by the plan made before loading; a person may have it loaded anyway
    - DownloadFailed            the Hub could not be reached, or the disk is full
  x BackendError                the model was asked and did not answer      .model .retry_after
    + Retryable                 the same request may work a little later
      - RateLimited             too many requests
      - ServerFailure           the service has a fault of its own
      - ConnectionFailure       the service cannot be reached
      - TimedOut                it took too long
    - AuthenticationFailure     the key was refused
    - QuotaExceeded             the account has no credit left
    - ProtocolFailure           the answer is not what the protocol says
    - WorkerCrashed             the process of a local model ended
    - BadRequest                the service does not accept the request
      . ContextLengthExceeded   prompt and history do not fit
    - Unexpected                a bug of ours, shown in one column instead of ending the app

`isinstance(error, Retryable)` is the whole decision whether to ask again.
"""

from __future__ import annotations


class MultimodelError(Exception):
    """Something went wrong that a person can act on."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(MultimodelError): ...


class InvalidModelId(ConfigError): ...


class InvalidParameter(ConfigError): ...


class InvalidSetting(ConfigError): ...


class MissingKey(ConfigError): ...


class MissingDependency(ConfigError): ...


class InvalidName(ConfigError): ...


class DataError(MultimodelError): ...


class FileRefused(MultimodelError): ...


class TrainingError(MultimodelError): ...


class Diverged(TrainingError): ...


class DiskFull(TrainingError): ...


class BatchError(MultimodelError): ...


class StoreError(MultimodelError): ...


class NotKept(StoreError): ...


class NewerDatabase(StoreError): ...


class ForeignFile(StoreError): ...


class LoadError(MultimodelError): ...


class ModelNotFound(LoadError): ...


class GatedModel(LoadError): ...


class BrokenFile(LoadError): ...


class NotEnoughMemory(LoadError): ...


class TooLarge(NotEnoughMemory): ...


class DownloadFailed(LoadError): ...


class BackendError(MultimodelError):
    """A model was asked and did not answer as it should."""

    def __init__(self, message: str, *, model: str = "", retry_after: float | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.model = model
        self.retry_after = retry_after


class Retryable(BackendError): ...


class RateLimited(Retryable): ...


class ServerFailure(Retryable): ...


class ConnectionFailure(Retryable): ...


class TimedOut(Retryable): ...


class AuthenticationFailure(BackendError): ...


class QuotaExceeded(BackendError): ...


class ProtocolFailure(BackendError): ...


class WorkerCrashed(BackendError): ...


class BadRequest(BackendError): ...


class ContextLengthExceeded(BadRequest): ...


class Unexpected(BackendError): ...


def by_name(name: str) -> type[MultimodelError]:
    """The error class called `name`; `Unexpected` for a name that is none of ours.

    A worker process sends its errors by name.

    >>> by_name("BrokenFile").__name__, by_name("KeyError").__name__
    ('BrokenFile', 'Unexpected')
    """
    found = globals().get(name)
    return found if isinstance(found, type) and issubclass(found, MultimodelError) else Unexpected
