"""The name of a project, as the settings and the policy write it."""

from __future__ import annotations

from typing import Annotated

from pydantic import StrictStr

from livekit_auth_server.core.keys import PROJECT_NAME
from livekit_auth_server.files.field_types import matching, patterned

ProjectName = Annotated[
    StrictStr, matching(PROJECT_NAME, 'a project\'s name: a-z, 0-9 and "-"'), patterned(PROJECT_NAME)
]
