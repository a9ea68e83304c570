"""Whom a scheduler's address reaches, and whether it may be used: TLS, its certificates, and a first greeting.

Dask runs code for whoever reaches a scheduler or worker. On loopback that is this machine; anywhere else only TLS, with
certificates that both sides must show, keeps others out.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from distributed.security import Security

from pipeline.errors import ClusterError
from pipeline.settings import Settings

ENCRYPTED = ("tls", "wss")
GREETED = ("tcp", "tls")
"""Protocols in which a scheduler speaks first, so that a wrong one is found out before Dask waits for it."""
FORCE = "MARSTFN_INSECURE=1"


def host_of(address: str) -> str:
    """The host in `tls://HOST:PORT`, or in `HOST:PORT`; empty where there is none, which is every address."""
    text = address if "://" in address else f"//{address}"
    try:
        return urlsplit(text).hostname or ""
    except ValueError:
        return ""


def loopback(host: str) -> bool:
    """Whether only this machine reaches `host`; False for a name that cannot be resolved."""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host or "0.0.0.0", None)}
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(ipaddress.ip_address(a.partition("%")[0]).is_loopback for a in found)


def allowed(address: str, chosen: Settings) -> None:
    """Raise ClusterError where a scheduler at `address` would be reached over a network without TLS, unless forced."""
    scheme = address.partition("://")[0]
    if scheme in ENCRYPTED or chosen.insecure or loopback(host_of(address)):
        return
    raise ClusterError(
        f"{address} is not on this machine and not encrypted: a Dask scheduler and its workers run code for whoever "
        "reaches their ports, and credentials would pass in the clear; nothing was sent. Start it with TLS and give "
        f"tls://{address.partition('://')[2]} (deploy/README.md), or force it with {FORCE} where the network is yours "
        "alone"
    )


def allowed_dashboard(address: str, chosen: Settings) -> None:
    """Raise ClusterError where the dashboard would be bound beyond loopback, unless forced."""
    if chosen.insecure or loopback(host_of(address if ":" in address else f":{address}")):
        return
    raise ClusterError(
        f"the dashboard at {address} would be open to the network without TLS, and it runs code for whoever reaches "
        "it; nothing was started. Bind it to 127.0.0.1:PORT (MARSTFN_DASHBOARD) and go there through ssh -L, or force "
        f"it with {FORCE}"
    )


def security(address: str, chosen: Settings) -> Security | None:
    """The client's certificates for `address`: MARSTFN_TLS_CA, _CERT and _KEY, else as Dask is configured; None where
    nothing is encrypted. Raises ClusterError where they are missing or cannot be used."""
    if address.partition("://")[0] not in ENCRYPTED:
        return None
    given = {"tls_ca_file": chosen.tls_ca, "tls_client_cert": chosen.tls_cert, "tls_client_key": chosen.tls_key}
    ours = {key: str(Path(path).expanduser()) for key, path in given.items() if path is not None}
    found = Security(require_encryption=True, **ours)
    files = {
        "the authority's certificate (MARSTFN_TLS_CA, distributed.comm.tls.ca-file)": found.tls_ca_file,
        "the client's certificate (MARSTFN_TLS_CERT, distributed.comm.tls.client.cert)": found.tls_client_cert,
        # Dask takes the key from the certificate's file where it is not named
        "the client's key (MARSTFN_TLS_KEY, distributed.comm.tls.client.key)": found.tls_client_key
        or found.tls_client_cert,
    }
    missing = [what for what, path in files.items() if not path]
    if missing:
        raise ClusterError(
            f"{address} asks for certificates, and none is named for {' and '.join(missing)}; nothing was sent. "
            "Give the files that go with that scheduler"
        )
    for what, path in files.items():
        if "\n" not in str(path) and not Path(str(path)).is_file():
            raise ClusterError(f"there is no file {path}, {what}; nothing was sent to {address}. Correct its path")
    try:
        found.get_connection_args("client")
    except (OSError, ValueError) as error:  # of which ssl.SSLError is one
        raise ClusterError(
            f"the certificates for {address} cannot be used: {error} (authority {found.tls_ca_file}, certificate "
            f"{found.tls_client_cert}, key {found.tls_client_key}); nothing was sent. Give three PEM files that belong "
            "together"
        ) from error
    return found


def greet(address: str, credentials: Security | None, patience: float) -> None:
    """Meet the scheduler at `address` and hang up: it speaks first, if it is one and takes our certificate.

    Raises ClusterError within `patience` seconds, saying which of the ways to miss it this is.
    """
    scheme = address.partition("://")[0]
    if scheme not in GREETED:
        return
    try:
        port = urlsplit(address).port
    except ValueError:
        port = None
    if not host_of(address) or port is None:
        raise ClusterError(f"{address} is no address of a Dask scheduler; give {scheme}://HOST:PORT, usually port 8786")
    nobody = (
        "nothing was computed. Start one (dask scheduler), correct --scheduler, or leave it out for an embedded cluster"
    )
    try:
        connection = socket.create_connection((host_of(address), port), timeout=patience)
    except OSError as error:
        raise ClusterError(
            f"no Dask scheduler answers at {address} within {patience:g} s ({error}); {nobody}"
        ) from error
    with connection:
        if credentials is None:
            if not _speaks(connection):
                other = f"tls://{address.partition('://')[2]}"
                hint = f"it speaks TLS: give {other}" if _encrypted(address, patience) else "it is another service"
                raise ClusterError(f"what answers at {address} is no Dask scheduler without TLS; {hint}; {nobody}")
            return
        context = credentials.get_connection_args("client")["ssl_context"]
        try:
            with context.wrap_socket(connection) as channel:
                spoken = _speaks(channel)
        except ssl.SSLCertVerificationError as error:
            raise ClusterError(
                f"the certificate of the scheduler at {address} is not signed by {credentials.tls_ca_file} "
                f"({error.verify_message}); nothing was sent. Give the authority of that cluster (MARSTFN_TLS_CA), or "
                "find out who answers there"
            ) from error
        except TimeoutError as error:
            raise ClusterError(
                f"no Dask scheduler answers at {address} within {patience:g} s: something listens there and says "
                f"nothing; {nobody}"
            ) from error
        except (ssl.SSLError, OSError) as error:
            reason = str(getattr(error, "reason", None) or error)
            if "ALERT" in reason:
                raise ClusterError(
                    f"the scheduler at {address} refuses the certificate {credentials.tls_client_cert} "
                    f"({reason.lower().replace('_', ' ')}); nothing was sent. Give one that its authority signed, and "
                    "that has not run out (MARSTFN_TLS_CERT, MARSTFN_TLS_KEY)"
                ) from error
            other = f"tcp://{address.partition('://')[2]}"
            raise ClusterError(
                f"what answers at {address} speaks no TLS ({reason.lower().replace('_', ' ')}); nothing was sent. "
                f"Start the scheduler with TLS; on this machine alone {other} does as well"
            ) from error
        if not spoken:
            raise ClusterError(f"what answers at {address} is no Dask scheduler, or it hung up; {nobody}")


def _speaks(connection: socket.socket) -> bool:
    """Whether the other side says anything by itself. Raises ssl.SSLError where it refuses us by an alert."""
    try:
        return bool(connection.recv(1))
    except ssl.SSLError:
        raise
    except OSError:
        return False


def _encrypted(address: str, patience: float) -> bool:
    """Whether a TLS server listens there, whosever it is."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with suppress(OSError):
        with socket.create_connection((host_of(address), urlsplit(address).port or 0), timeout=patience) as connection:
            try:
                context.wrap_socket(connection).close()
            except ssl.SSLError as error:
                return "ALERT" in str(error.reason)
        return True
    return False
