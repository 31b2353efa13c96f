"""What a request is refused with: its status in HTTP and gRPC, and a sentence that names the field and the fix.

::

    RefusedError              400  the request is not what the signature or the protocol asks for
    ├── NotFoundError         404  no such model, version or route
    └── TooLargeError         413  more rows or bytes than are taken
    OverloadedError           503  not now; trying again helps
"""

from scorers.errors import TidewatchError


class RefusedError(TidewatchError):
    """The request is at fault; trying again does not help."""

    status = 400


class NotFoundError(RefusedError):
    """There is no such model or version."""

    status = 404


class TooLargeError(RefusedError):
    """More rows or bytes than one request may have."""

    status = 413


class OverloadedError(RefusedError):
    """What is asked for cannot be had now, as a model that is being loaded and fails to."""

    status = 503
    retryable = True
