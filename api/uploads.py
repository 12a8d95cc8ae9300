"""Multipart uploads, written to disk as they come: limits hold while bytes arrive, and a name is only ever a name in one folder."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from api.errors import BadRequest, BodyTooLarge, WrongMediaType
from api.strict import shown
from rag.durable import sync_folder
from rag.errors import InputError, StorageError, UnknownField

FIELD = "files"
_LONGEST_NAME = 200             # bytes: file systems take 255, and we add to none
_HEADER_BYTES = 8_192
_FORBIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def boundary_of(content_type: str) -> bytes:
    """What separates the parts. Raises WrongMediaType, BadRequest: the body is declared as something else, or without one."""
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise WrongMediaType("The body is not declared as multipart/form-data.", hint=f"Send files in parts named {FIELD!r}.")
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= 200:
        raise BadRequest("The multipart body states no boundary.", code="multipart_invalid", hint="Let your HTTP client set it.")
    return boundary


def checked_name(raw: bytes) -> str:
    """The file name that a client sent, if it can be nothing but the name of a file in one folder.

    Raises:
        InputError: it is empty, no UTF-8, too long, holds a separator or control character, or begins with a dot or tilde.
    """
    try:
        name = unicodedata.normalize("NFC", raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise _unusable(repr(raw), "it is not UTF-8") from None
    if not name.strip():
        raise _unusable(name, "it is empty")
    if any(mark in name for mark in ("/", "\\", "\0")):
        raise _unusable(name, "it holds a path separator")
    if name[0] in ".~" or name[-1] in ". ":
        raise _unusable(name, "it begins with a dot or a tilde, or ends in a dot or a space")
    if any(unicodedata.category(letter) in _FORBIDDEN for letter in name):
        raise _unusable(name, "it holds a character that cannot be seen")
    if len(name.encode()) > _LONGEST_NAME:
        raise _unusable(name, f"it is longer than {_LONGEST_NAME} bytes")
    return name


class Receiving:
    """Files of one upload, into `folder`, which it makes. Feed it the body in order, then `finish`; `abandon` removes everything.
    Blocks on the disk: for worker threads, one call at a time."""

    def __init__(self, folder: Path, boundary: bytes, *, max_files: int, max_file_bytes: int) -> None:
        self.folder = folder
        self.names: list[str] = []
        self._max_files = max_files
        self._max_bytes = max_file_bytes
        self._file: BinaryIO | None = None
        self._size = 0
        self._headers: dict[bytes, bytes] = {}
        self._header = [bytearray(), bytearray()]
        self._header_bytes = 0
        self._ended = False
        self._parser = MultipartParser(boundary, {
            "on_part_begin": self._on_part_begin, "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value, "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished, "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end, "on_end": self._on_end})

    def feed(self, body: bytes) -> None:
        """Takes in the next bytes.

        Raises:
            BadRequest: no multipart. InputError, BodyTooLarge: a part that is not allowed. StorageError: the disk refused.
        """
        try:
            self._parser.write(body)
        except FormParserError as error:
            raise BadRequest(f"The body is not multipart as declared: {str(error)[:120]}", code="multipart_invalid",
                             hint="Let your HTTP client make it.") from None
        except OSError as error:
            raise _disk(self.folder, error) from error

    def finish(self) -> list[str]:
        """The names of the files, now safe on the disk, in order. Raises BadRequest, InputError: it broke off, or held none."""
        if not self._ended:
            raise BadRequest("The multipart body ends in the middle of a part.", code="multipart_invalid", hint="Send all of it.")
        if not self.names:
            raise InputError("The upload holds no file.", field=FIELD,
                             hint=f"Send at least one part named {FIELD!r} with a file name.")
        sync_folder(self.folder)
        return self.names

    def abandon(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _on_part_begin(self) -> None:
        self._headers = {}
        self._header_bytes = 0

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._grow(0, data[start:end])

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._grow(1, data[start:end])

    def _grow(self, which: int, piece: bytes) -> None:
        self._header_bytes += len(piece)
        if self._header_bytes > _HEADER_BYTES:
            raise BadRequest("A part's headers are too long.", code="multipart_invalid", hint="Send only what a file needs.")
        self._header[which] += piece

    def _on_header_end(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        self._header = [bytearray(), bytearray()]

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        field = options.get(b"name", b"")
        if field != FIELD.encode():
            raise UnknownField(f"Unknown part {shown(field.decode('utf-8', 'replace'))}.", field=FIELD,
                               hint=f"Name each part {FIELD!r}.")
        if b"filename" not in options:
            raise InputError("A part has no file name.", field=FIELD, hint="Send files, not form fields.", code="file_name_invalid")
        name = checked_name(options[b"filename"])
        if name in self.names:
            raise InputError(f"The file name {shown(name)} stands twice in one upload.", field=FIELD, code="file_name_repeated",
                             hint="Give each file its own name, or upload them one after the other.")
        if len(self.names) >= self._max_files:
            raise InputError(f"An upload may hold {self._max_files} files.", field=FIELD, code="too_many_files",
                             hint="Send the rest in another.")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = open(self.folder / name, "xb")  # noqa: SIM115  # closed when the part ends, or by `abandon`
        self._size = 0
        self.names.append(name)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size > self._max_bytes:
            raise BodyTooLarge(f"The file {shown(self.names[-1])} is larger than {self._max_bytes / 1e6:g} MB.", field=FIELD,
                               code="file_too_large", hint="Split it, or raise the setting max_file_mb.")
        if self._file is not None:
            self._file.write(data[start:end])

    def _on_part_end(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def _on_end(self) -> None:
        self._ended = True


def _unusable(name: str, why: str) -> InputError:
    return InputError(f"{shown(name)} cannot name a file: {why}.", field=FIELD, code="file_name_invalid",
                      hint="Send the bare name, without folders.")


def _disk(folder: Path, error: OSError) -> StorageError:
    return StorageError(f"{folder} cannot be written: {error.strerror or error}.", hint="Check the folder and the disk.")
