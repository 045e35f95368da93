"""The settings, a frozen value made once at the front door and handed down.

Order: arguments, then the environment, then the file `.env` in the working directory, then the defaults. No other
module reads the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from .errors import InvalidModelId, InvalidSetting
from .types import ModelId

ROOT = Path(__file__).resolve().parents[1]
RESERVED = frozenset({"echo", "openai", "hf-inference", "transformers", "gguf"})


class Endpoint(BaseModel):
    """A server of the OpenAI protocol: Ollama, LM Studio, llama-server, vLLM, TGI, a Ray Serve cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")  # becomes a backend: name:MODEL
    base_url: str = Field(pattern=r"^https?://[^\s@]+$")
    key_var: str = ""  # the variable that holds its key; empty: the server asks for none

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name in RESERVED:
            raise ValueError(f"{name!r} is the name of a built-in backend")
        return name


Rate = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
Rates = tuple[Rate, Rate] | tuple[Rate, Rate, Rate]
"""US dollars for a million tokens of prompt, of answer, and of prompt that the service had cached."""


class Group(BaseSettings):
    """Settings that belong together.

    The prefix holds for field names: without it a plain COLUMNS, HOST or PORT of the shell would be taken for ours.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_file=".env",
        env_prefix="MULTIMODEL_",
        env_ignore_empty=True,
        populate_by_name=True,
    )


def _model_ids(texts: Iterable[str]) -> tuple[str, ...]:
    """Ids of models as they are usually written. Raises ValueError, which pydantic reports with the variable's name."""
    try:
        return tuple(str(ModelId.parse(text)) for text in texts)
    except InvalidModelId as error:
        raise ValueError(f"{error} {error.hint}") from None


def _env(*names: str, **options: Any) -> Any:
    return Field(validation_alias=AliasChoices(*names), **options)


class ModelSettings(Group):
    """Where models lie and how they are loaded."""

    cache_dir: Path = _env("MODEL_CACHE_DIR", default=Path("model_cache"))
    fine_tuned_dir: Path = _env("FINE_TUNED_DIR", default=Path("fine_tuned_models"))
    assets_dir: Path = _env("MULTIMODEL_ASSETS_DIR", default=ROOT / "assets")
    context_length: int = _env("MULTIMODEL_CONTEXT_LENGTH", default=4096, ge=64)
    hub_url: str = _env("HF_ENDPOINT", default="https://huggingface.co")
    offline: bool = _env("HF_HUB_OFFLINE", default=False)


class ApiSettings(Group):
    """Keys and addresses of remote services."""

    openai_key: SecretStr | None = _env("OPENAI_API_KEY", default=None)
    openai_base_url: str = _env("OPENAI_BASE_URL", default="https://api.openai.com/v1")
    hf_token: SecretStr | None = _env("HUGGINGFACE_API_TOKEN", "HF_TOKEN", default=None)
    hf_inference_url: str = _env("HF_INFERENCE_URL", default="")  # empty: the Hub's own router
    endpoints: tuple[Endpoint, ...] = _env("ENDPOINTS", default=())
    first_token_timeout: float = _env("MULTIMODEL_FIRST_TOKEN_TIMEOUT", default=120.0, gt=0)
    stall_timeout: float = _env("MULTIMODEL_STALL_TIMEOUT", default=45.0, gt=0)
    prices: dict[str, Rates] = _env("PRICES", default={})  # by model ids; "endpoint:*" is all of an endpoint
    retries: int = _env("MULTIMODEL_RETRIES", default=2, ge=0, le=10)

    @field_validator("prices")
    @classmethod
    def _of_models(cls, prices: dict[str, Rates]) -> dict[str, Rates]:
        return dict(zip(_model_ids(prices), prices.values(), strict=True))

    @field_validator("openai_base_url")
    @classmethod
    def _not_empty(cls, url: str) -> str:
        return url or "https://api.openai.com/v1"


class ChatSettings(Group):
    """What a new chat starts with, and where all are kept."""

    columns: tuple[str, ...] = _env("MULTIMODEL_COLUMNS", default=("transformers:guide", "gguf:guide"))
    max_tokens: int = _env("MULTIMODEL_MAX_TOKENS", default=1024, ge=1)
    temperature: float = _env("MULTIMODEL_TEMPERATURE", default=0.0, ge=0, le=2)
    system_prompt: str = _env("MULTIMODEL_SYSTEM_PROMPT", default="")
    data_dir: Path = _env("MULTIMODEL_DATA_DIR", default=Path("user_data"))

    @field_validator("columns")
    @classmethod
    def _are_models(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        if not columns:
            raise ValueError("at least one column is needed")
        return _model_ids(columns)


class PerformanceSettings(Group):
    """How much of the machine to use."""

    threads: int | None = _env("MULTIMODEL_THREADS", default=None, ge=1)  # None: all cores but one
    idle_minutes: float = _env("MULTIMODEL_IDLE_MINUTES", default=15.0, ge=0)  # 0: loaded models stay
    updates_per_second: float = _env("MULTIMODEL_UPDATES_PER_SECOND", default=15.0, gt=0, le=15)


class TrackingSettings(Group):
    """Where the curves of fine-tuning runs are kept beside the runs' own record."""

    enabled: bool = _env("MULTIMODEL_TRACKING", default=True)
    project: str = _env("MULTIMODEL_TRACKING_PROJECT", default="multimodel", pattern=r"^[A-Za-z0-9][\w.-]{0,63}$")
    wandb_key: SecretStr | None = _env("WANDB_API_KEY", default=None)
    wandb_url: str = _env("WANDB_BASE_URL", default="https://api.wandb.ai", pattern=r"^https?://[^\s@]+$")

    def environment(self) -> dict[str, str]:
        """The same for the process that trains, key included; nothing of it is written anywhere."""
        key = self.wandb_key.get_secret_value() if self.wandb_key else ""
        names = ("MULTIMODEL_TRACKING_PROJECT", "WANDB_API_KEY", "WANDB_BASE_URL")
        found = dict(zip(names, (self.project, key, self.wandb_url), strict=True)) if self.enabled else {}
        return {"MULTIMODEL_TRACKING": str(self.enabled)} | found


class SecuritySettings(Group):
    """Who may use the page."""

    host: str = _env("MULTIMODEL_HOST", default="127.0.0.1")
    port: int = _env("MULTIMODEL_PORT", default=7860, ge=0, le=65535)
    allowed_hosts: tuple[str, ...] = _env("MULTIMODEL_ALLOWED_HOSTS", default=())  # besides this machine's own names

    @property
    def private(self) -> bool:
        """Whether nobody but the person at this machine can reach the page: its paths may then be named there.

        >>> SecuritySettings(host="127.0.0.1").private, SecuritySettings(host="0.0.0.0").private
        (True, False)
        """
        try:
            return not self.allowed_hosts and (self.host == "localhost" or ip_address(self.host).is_loopback)
        except ValueError:
            return False


class Settings(BaseModel):
    """All settings. `Settings(models=ModelSettings(cache_dir=...))` in a test needs nothing else."""

    model_config = ConfigDict(frozen=True)

    models: ModelSettings = Field(default_factory=ModelSettings)
    api: ApiSettings = Field(default_factory=ApiSettings)
    chat: ChatSettings = Field(default_factory=ChatSettings)
    performance: PerformanceSettings = Field(default_factory=PerformanceSettings)
    tracking: TrackingSettings = Field(default_factory=TrackingSettings)
    security: SecuritySettings = Field(default_factory=SecuritySettings)
    environment: dict[str, SecretStr] = Field(default_factory=dict, repr=False)  # keys named by endpoints

    @classmethod
    def load(cls) -> Self:
        """The settings of this environment. Raises InvalidSetting naming the variable."""
        try:
            settings = cls()
            keys = {e.key_var: _variable(e.key_var) for e in settings.api.endpoints if e.key_var}
        except ValidationError as error:
            raise _invalid(error) from None
        except SettingsError as error:
            raise _unreadable(error) from None
        found = {name: SecretStr(value) for name, value in keys.items() if value}
        return settings.model_copy(update={"environment": found})

    def endpoint(self, name: str) -> Endpoint | None:
        """The endpoint of that name."""
        return next((e for e in self.api.endpoints if e.name == name), None)


def _invalid(error: ValidationError) -> InvalidSetting:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return InvalidSetting(f"{where}: {first['msg']}.", hint="Correct it in .env or the environment.")


def _unreadable(error: SettingsError) -> InvalidSetting:
    """A list or an object that is not JSON: pydantic-settings names only the field."""
    field = str(error).split('"')[1]
    groups = (ModelSettings, ApiSettings, ChatSettings, PerformanceSettings, TrackingSettings, SecuritySettings)
    info = next(group.model_fields[field] for group in groups if field in group.model_fields)
    alias = info.validation_alias
    name = alias.choices[0] if isinstance(alias, AliasChoices) else field
    hint = "Write a list as JSON in .env or the environment; .env.example shows how."
    return InvalidSetting(f"{name} is not JSON.", hint=hint)


def _variable(name: str) -> str:
    """One variable of the environment or .env, by a name that only the settings know."""

    class One(Group):
        value: str = _env(name, default="")

    return One().value


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings.load()


_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH|COOKIE", re.IGNORECASE)


def child_environment() -> dict[str, str]:
    """The environment for a process that reads files of others: everything but what looks like a secret."""
    return {name: value for name, value in os.environ.items() if not _SECRET.search(name)}


def tell_libraries(values: Mapping[str, str]) -> None:
    """Set variables of this process for libraries that can be told in no other way."""
    os.environ.update(values)


def process_rank() -> int:
    """The place of this process among those that train one model, as torchrun and accelerate say it; 0 when alone."""
    return int(os.environ.get("RANK", "0"))


def splits_model() -> bool:
    """Whether the processes that train one model hold a part of it each (FSDP), as accelerate says it."""
    return "RANK" in os.environ and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
