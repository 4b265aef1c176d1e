"""Talks to a server of live streams (`streamgen serve`, `streamgen webcam`) over the network.

    client = Client("http://127.0.0.1:7860")
    with client.open("tiny-cpu", prompt="a red ball bouncing over a green field") as session:
        for frame in session:
            show(frame.pixels)

Synchronous; needs websockets and pydantic, and no torch. docs/api.md says what goes over the wire.
"""

from streamgen.client.http import Client
from streamgen.client.session import ClientFrame, Session

__all__ = ["Client", "ClientFrame", "Session"]
