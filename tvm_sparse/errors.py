"""Exceptions that carry a message for the user: what is wrong, where, and the remedy."""


class TvmSparseError(Exception):
    """A failure that the user can act on; the command line prints it without a traceback and exits with 4."""


class ImportModelError(TvmSparseError):
    """A model file that cannot be read or holds something that cannot be imported."""


class PackageError(TvmSparseError):
    """A package that is damaged, unsafe, or made for another machine or version."""


class InputError(TvmSparseError):
    """Inputs of a run that do not fit the model: name, shape or dtype."""


class MissingPackageError(TvmSparseError):
    """An optional Python package that is needed here is not installed; the command line exits with 5.

    Parameters
    ----------
    package : str
        Name of the missing package.
    hint : str
        How to install it.
    """

    def __init__(self, package: str, hint: str):
        super().__init__(f'Package "{package}" is not installed. Hint: {hint}')
        self.package = package
        self.hint = hint
