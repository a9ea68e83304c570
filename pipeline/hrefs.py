"""Addresses as they may be written down: without secrets."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit, urlunsplit

_SECRETS = {
    "sig", "x-amz-signature", "x-goog-signature", "signature", "token", "access_token", "x-amz-security-token", "key",
    "api_key", "apikey", "api-key", "subscription-key", "password", "passwd", "secret", "auth",
}  # fmt: skip


def unsigned(href: str) -> str:
    """`href` without what must reach no plan, log or message: user name and password, and a query that signs."""
    parts = urlsplit(href)
    if "@" in parts.netloc and parts.hostname:
        parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    if not _SECRETS & {key.lower() for key, _ in parse_qsl(parts.query, keep_blank_values=True)}:
        return urlunsplit(parts) if "@" in urlsplit(href).netloc else href
    return urlunsplit(parts._replace(query=""))
