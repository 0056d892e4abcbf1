"""The base of every configuration section: typed, frozen, unknown keys refused."""

import hashlib

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One asset's settings. Fields are flat and carry their range and a description; the object logged is the one used."""

    # Infinity and nan are no settings: they can't be written down as JSON.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def sha256(self) -> str:
        """Hash of every setting."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()
