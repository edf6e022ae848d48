"""What the container serves until it is given something else: the demo's page, a chat and a counter for all clients.

What must not live here: an application of yours; see ../Dockerfile for where that goes.
"""

from tidegate.cli.demo_application import app

__all__ = ["app"]
