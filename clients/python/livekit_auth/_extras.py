"""What to run where an optional part isn't installed.

Nothing is published on the package index: whoever took the name there would be installed. So a checkout is named.
"""

_CHECKOUTS = {"livekit-auth": "./clients/python", "livekit-auth-server": "./server"}


def missing(extras: str, dist: str = "livekit-auth") -> str:
    """The words for a missing extra, or several with commas, of the client or of the server."""
    client = "" if dist == "livekit-auth" else " ./clients/python"
    return (
        f"the extra {extras} of {dist} isn't installed; run in the checkout: "
        f"pip install '{_CHECKOUTS[dist]}[{extras}]'{client} (or name your wheels in the folders' places)"
    )
