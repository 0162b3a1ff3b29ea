"""The log's filter language: Bedrock's requestMetadataFilters, and time, task, alias and more."""

from pydantic import BaseModel, ConfigDict


class Filter(BaseModel):
    """Which invocations are meant."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
