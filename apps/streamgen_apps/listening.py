"""Ports, certificates and names of addresses, for programs that serve."""

from __future__ import annotations

import argparse
import contextlib
import socket
import ssl
from pathlib import Path

from streamgen.errors import ConfigError, SinkError


def listen(host: str, port: int) -> socket.socket:
    """Take the port before models are loaded, so that a taken one is told at once."""
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port {port} is not in 0 to 65535; choose another")
    with contextlib.ExitStack() as stack:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
        except OSError as error:
            raise SinkError(
                f"cannot listen on {host} port {port}: {error.strerror}; choose another --port "
                f"or --host"
            ) from error
        stack.pop_all()
    return listener


def certificate_of(
    options: argparse.Namespace, stack: contextlib.ExitStack
) -> tuple[Path, Path] | None:
    """Certificate and key files, or None for plain HTTP; own ones live as long as the server."""
    if options.certificate or options.key:
        if not (options.certificate and options.key):
            raise ConfigError("--certificate and --key belong together; give both or --https")
        files = Path(options.certificate), Path(options.key)
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(*files)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"{files[0]} and {files[1]} are no certificate: {error}") from error
        return files
    if not options.https:
        return None
    from streamgen.serving.gateway.certificate import self_signed

    return stack.enter_context(self_signed(options.host))


def reachable_name(host: str) -> str:
    """An address that others can open, where `host` means all of this machine's."""
    if host not in ("0.0.0.0", "::"):
        return host
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: it only asks which way packets would go
        return probe.getsockname()[0]
    return socket.gethostname()
