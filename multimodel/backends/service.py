"""A remote service: what it is called, where it is, and the key that is sent there and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Self
from urllib.parse import urlsplit

from pydantic import SecretStr

from ..errors import InvalidSetting, MissingKey

PLACEHOLDER = "none"
"""Sent where a server asks for no key but its protocol has a place for one."""


@dataclass(frozen=True, slots=True)
class Service:
    """A remote service as it is asked and as error sentences call it."""

    backend: str  # the first part of its ids
    title: str
    base_url: str  # without a slash at the end
    key: str = field(default="", repr=False)  # empty: none is set
    key_var: str = ""
    key_page: str = ""  # where to get a key

    @property
    def host(self) -> str:
        return urlsplit(self.base_url).hostname or ""

    @property
    def on_this_machine(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def checked(self, *, key_needed: bool) -> Self:
        """Itself. Raises MissingKey, or InvalidSetting for a key that no header can carry.

        The second, because an SDK would print such a key in its error.
        """
        if key_needed and not self.key:
            where = f"; get one at {self.key_page}" if self.key_page else ""
            hint = f"Set {self.key_var} in .env or the environment{where}."
            raise MissingKey(f"{self.title} needs a key in {self.key_var}.", hint=hint)
        if not all("!" <= letter <= "~" for letter in self.key):
            raise InvalidSetting(
                f"The key in {self.key_var} holds a space, a line break or a letter that no key has.",
                hint=f"Copy it again, without quotes, into {self.key_var}.",
            )
        return self


def revealed(secret: SecretStr | None) -> str:
    """The text of a secret, trimmed of the white space that copying adds; empty without one."""
    return secret.get_secret_value().strip() if secret else ""
