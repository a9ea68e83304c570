"""The user's defaults: environment variables MARSTFN_..., or a TOML file with profiles."""

from __future__ import annotations

import math
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any

from dask.utils import parse_bytes
from pydantic import Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pipeline import aoi
from pipeline.errors import PlanError
from pipeline.plan import Method

CONFIG = "MARSTFN_CONFIG"
"""Names another configuration file than ~/.config/marstfn/config.toml."""

PROFILE = "MARSTFN_PROFILE"
"""Names the table of the configuration file that overrides its top level."""

THREADS = 24
"""Threads that read in a process, where nothing else is said."""


class Settings(BaseSettings):
    """Defaults of every run: MARSTFN_<NAME> in the environment, then the configuration file, then these."""

    model_config = SettingsConfigDict(env_prefix="MARSTFN_", env_ignore_empty=True, frozen=True, extra="forbid")

    catalog: str = "planetary-computer"
    """`PROFILE` or `PROFILE@URL`."""
    year: int | None = None
    """None: the last complete year."""
    store: str | None = None
    """Folder (or object-store prefix) in which each run makes `<name>-<year>`; None: beside the AOI file."""
    weights: str = "auto"
    method: Method = "auto"
    scheduler: str | None = None
    """Address of a running Dask scheduler; None: a local cluster for the run."""
    tile_px: int | None = None
    aoi_max_km2: Annotated[float, Field(gt=0)] = aoi.MAX_KM2
    aoi_max_bytes: Annotated[int, Field(gt=0)] = aoi.MAX_BYTES
    timeout: Annotated[float, Field(gt=0)] = 60.0
    """Seconds to wait for an answer of a catalogue."""
    io_threads: Annotated[int, Field(ge=1, le=128)] = THREADS
    """Threads that read assets on the I/O worker of a local cluster."""
    unit_mb: Annotated[int, Field(ge=0)] = 2100
    """Megabytes that the pixels of one reading unit may take; two are read at once. 0: each tile by itself."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Fusing workers of a local cluster without a GPU; with GPUs there is one a device."""
    memory_limit: str = "auto"
    """Memory limit of a local Dask worker, as Dask reads it."""
    calibrate: bool = True
    """Whether `marstfn plan` may measure this machine for a few seconds; what it finds is kept in the user's cache."""
    cache: str | None = None
    """Folder in which measured rates are kept; None: marstfn in the user's cache folder."""
    store_patience: Annotated[float, Field(ge=1, le=290)] = 240.0
    """Seconds for which an object store that answers 5xx, or not at all, is asked again; workers read their own. Under
    five minutes, for a request is signed once and its signature runs out."""
    worker_patience: Annotated[float, Field(gt=0)] | None = None
    """Seconds for which a run waits for workers of a scheduler that something starts when tasks wait (adaptive
    scaling); None: one without workers for fusing is refused at once, and a stage that all leave is given up soon."""
    tls_ca: Path | None = None
    """Certificate of the authority that signed a Dask cluster's certificates (PEM). With the next two the client's side
    of a scheduler at tls://...; None: as Dask is configured (distributed.comm.tls)."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure: bool = False
    """Take part where whoever reaches a port can run code: Dask without TLS, or Prefect without an auth string, on an
    address that is not loopback."""
    dashboard: str = "127.0.0.1:0"
    """Address of the Dask dashboard of a local cluster; loopback, for it runs code for whoever reaches it."""

    @field_validator("memory_limit")
    @classmethod
    def _as_dask_reads_it(cls, value: str) -> str:
        try:
            found = float(value)  # a share of the machine's up to 1, else bytes; 0: no limit
        except ValueError:
            found = 0.0 if value == "auto" else float(parse_bytes(value))
        if not 0 <= found < math.inf:
            raise ValueError("a limit of memory is 0 or more, as in 4GiB, or auto")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _File(settings_cls)


class _File(PydanticBaseSettingsSource):
    """The configuration file: its top level, overridden by the table that MARSTFN_PROFILE names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False  # everything comes from __call__

    def __call__(self) -> dict[str, Any]:
        return configured()


def config_path() -> Path:
    """The configuration file, whether or not it exists."""
    named = os.environ.get(CONFIG)
    if named:
        return Path(named).expanduser()
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "marstfn" / "config.toml"


def configured() -> dict[str, Any]:
    """What the configuration file says, for the profile in force; empty without a file.

    Raises PlanError for a file that was named and is missing, is not TOML, or lacks the profile.
    """
    path, profile = config_path(), os.environ.get(PROFILE)
    if not path.is_file():
        if os.environ.get(CONFIG):
            raise PlanError(f"configuration {path} ({CONFIG}) does not exist; create it or unset {CONFIG}")
        if profile:
            raise PlanError(f"profile {profile!r} ({PROFILE}) needs the configuration file {path}; create it")
        return {}
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PlanError(f"configuration {path} cannot be read: {error}; correct it") from error
    tables = {key: value for key, value in document.items() if isinstance(value, dict)}
    values = {key: value for key, value in document.items() if key not in tables}
    if profile:
        if profile not in tables:
            known = ", ".join(tables) or "none"
            raise PlanError(f"profile {profile!r} ({PROFILE}) is not in {path}; its profiles: {known}")
        values |= tables[profile]
    return values


def load(**given: Any) -> Settings:
    """The settings in force; `given` wins over environment and file.

    Raises PlanError that names the variable or key that is wrong.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        raise PlanError(f"settings are not usable: {explained(error, prefix='MARSTFN_')}") from error


def explained(error: ValidationError, *, prefix: str = "") -> str:
    """A pydantic error as one line: name, what was given, what is wrong with it."""
    lines = []
    for part in error.errors(include_url=False):
        name = ".".join(str(step) for step in part["loc"] if not str(step).startswith("function-"))
        if prefix and name:
            name = f"{name} ({prefix}{name.upper()})"
        given = "" if part["type"] in ("missing",) else f" = {_brief(part.get('input'))}"
        message = part["msg"].removeprefix("Value error, ")
        lines.append(f"{name}{given}: {message[:1].lower()}{message[1:]}" if name else message)
    return "; ".join(lines)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
