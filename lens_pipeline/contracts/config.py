"""The base of every configuration section: typed, frozen, unknown keys refused."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class ReadWhen:
    """Settings of a section that only some values of its other settings read.

    Attributes
    ----------
    condition : str
        What reads them, in words: ``design: grid``.
    holds : callable
        Whether a section is so.
    names : tuple of str
        The settings.
    """

    condition: str
    holds: Callable[[Any], bool]
    names: tuple[str, ...]


def refuse_unread(section: Section, rules: Iterable[ReadWhen]) -> None:
    """Refuse settings that were set and that nothing reads, lest a setting be believed that does nothing.

    Raises
    ------
    ValueError
        If one differs from its default while its condition doesn't hold.
    """
    fields = type(section).model_fields
    unread = {
        rule.condition: names
        for rule in rules
        if not rule.holds(section)
        and (names := [name for name in rule.names if getattr(section, name) != fields[name].default])
    }
    if unread:
        listed = "; ".join(f"{', '.join(names)}: read with {condition}" for condition, names in unread.items())
        raise ValueError(f"nothing reads what is set here ({listed}). Leave it out, or set what reads it")
