"""The base of every configuration section: typed, frozen, unknown keys refused."""

import hashlib

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One asset's settings. Fields are flat and carry their range and a description; the object logged is the one used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def sha256(self) -> str:
        """Hash of every setting."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()
