"""Types of values that several sections use, and the base class of all sections."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Name = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}\Z",
        description="a name: letters, digits and . _ : / @ -, at most 128, starting with a letter or digit",
    ),
]
AliasName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,126}(?:[A-Za-z0-9._:/@-]|\*)?\Z",
        description="a name: letters, digits and . _ : / @ -, at most 128, starting with a letter or digit; * at its end: "
        "it stands for all names that begin so",
    ),
]
Digest = Annotated[
    str,
    Meta(
        pattern=r"^sha256:[0-9a-f]{64}\Z",
        description="sha256: and 64 hex digits, as `sluice keys hash` prints them",
    ),
]
Count = Annotated[int, Meta(ge=1, le=10**9)]
Address = Annotated[
    str,
    Meta(description='host:port in quotes, such as "127.0.0.1:8080", "[::1]:8080" or ":8080"; or unix:/path'),
]
Content = Literal["none", "hash", "full"]
"""What call records contain of the texts of prompts and answers; the strictest first."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A section of the file: an unknown option in it is an error."""
