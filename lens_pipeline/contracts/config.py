"""The base of every configuration section: typed, frozen, unknown keys refused."""

import hashlib
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class Section(BaseModel):
    """One asset's settings. Fields are flat and carry their range and a description; the object logged is the one used."""

    # Infinity and nan are no settings: they can't be written down as JSON.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Pydantic would take `epochs: true` for 1.
        wanted = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and bool not in (wanted, *get_args(wanted)):
            raise ValueError(f"{str(value).lower()} is no value of this setting")
        return value

    def sha256(self) -> str:
        """Hash of every setting."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()
