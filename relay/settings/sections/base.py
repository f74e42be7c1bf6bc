"""What all sections of the settings share."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A section, or all of them."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def setting(default: object, description: str) -> Any:
    """Declares a key with its default as an operator would write it."""
    return Field(default=default, description=description, validate_default=True)
