"""ZIP: its members, in the order of the archive. What desktops leave in archives is passed over, as in folders."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath

from indexers.loaders.discovery import is_litter
from indexers.loaders.kinds import may_be_read
from indexers.loaders.outline import Member
from indexers.loaders.unpacking import Allowance, is_inside, opened, read_member
from rag.errors import FileUnreadable
from rag.settings import Settings


def unpack(data: bytes, *, settings: Settings, allowance: Allowance) -> Iterator[Member]:
    """Only what is going to be read counts for the allowance: a film in the archive harms nobody.

    Raises:
        UnsupportedFile: damaged, or larger inside than a file may be.
    """
    archive = opened(data)
    members = [member for member in archive.infolist() if not member.is_dir() and not _is_hidden(member)]
    if not members:
        raise FileUnreadable("It is empty.", hint="Nothing to read: leave it out.", code="file_empty")
    wanted = [member for member in members if may_be_read(PurePosixPath(member.filename))]
    allowance.spend(sum(member.file_size for member in wanted))
    for member in members:
        yield Member(member.filename, partial(read_member, archive, member))


def _is_hidden(member: zipfile.ZipInfo) -> bool:
    """`..` is no hidden folder: such a member is told."""
    path = PurePosixPath(member.filename)
    return is_inside(member.filename) and (any(part.startswith(".") for part in path.parts) or "__MACOSX" in path.parts
                                           or is_litter(path.name))
