"""Every error this project raises on purpose.

    StudioError                 catch this one to catch them all
    |- InputError               the caller's argument is wrong (also a ValueError)
    |  |- ImageError            a file or array that is not a usable image
    |  |- NoFaceError           a step needs a face and the photo shows none
    |- WeightsError             a weight file is missing, damaged or of another shape
    |  |- MissingWeightsError   not here, and it could not be fetched
    |- CredentialsError         Content Credentials cannot be written here, or with this certificate

Messages have one form: what must hold, what was given, what to do. They are one line, so that the command
line can print them as they are.
"""


class StudioError(Exception):
    """Root of every error raised on purpose by `studio` and `pipelines`."""


class InputError(StudioError, ValueError):
    """An argument is outside what the function accepts."""


class ImageError(InputError):
    """A file, array or PIL image that cannot be used as a photograph."""


class NoFaceError(InputError):
    """A step needs a face and none was found."""


class WeightsError(StudioError):
    """A weight file is damaged, or does not fit the network it was given to."""


class MissingWeightsError(WeightsError):
    """A weight file is not on this machine and could not be fetched."""


class CredentialsError(StudioError):
    """Content Credentials cannot be written: no package, no usable certificate, or a file that takes none."""
