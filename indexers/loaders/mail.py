"""Mail (RFC 5322): the message as a document with its subject for a title, then each attachment as a file of its own.

The plain text is preferred to the HTML, which says the same. Sender, recipients and date head the text, so that it answers
who wrote when, and are metadata. Pictures and signatures among the attachments are of no known kind and are skipped.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator
from contextlib import suppress
from email import message_from_bytes, policy
from email.errors import MessageError
from email.message import EmailMessage
from email.utils import getaddresses, parsedate_to_datetime
from pathlib import PurePosixPath

from indexers.loaders import html
from indexers.loaders.outline import Member, Page, Parsed, joined
from indexers.loaders.reading import damaged, decode
from indexers.loaders.unpacking import Allowance
from rag.settings import Settings
from rag.types import FieldValue, Metadata

# Mail programs write trees three or four levels deep.
_MAX_DEPTH = 20
_MEDIA_TYPE = "message/rfc822"
# An attached message is passed on as it was sent.
_POLICY = policy.default.clone(refold_source="none")


def unpack(data: bytes, *, settings: Settings, allowance: Allowance) -> Iterator[Parsed | Member]:
    """
    Raises:
        UnsupportedFile: no mail, or one nested too deeply.
    """
    try:
        message = message_from_bytes(data, policy=_POLICY)
        body, attachments = _parts(message)
        headers = _headers(message)
    except RecursionError as error:
        raise damaged("mail message", "its parts are nested too deeply") from error
    except (MessageError, ValueError, LookupError, AttributeError, TypeError) as error:     # what its parser makes of bad headers
        raise damaged("mail message", type(error).__name__) from error
    if not headers:
        raise damaged("mail message", "it has no sender, recipient, date or subject")
    yield _written(headers, body, title=_line(message, "subject"))
    names: set[str] = set()
    for number, part in enumerate(attachments, start=1):
        yield Member(_free_name(part, number, names), lambda part=part: _content(part))  # type: ignore[misc]


def _parts(message: EmailMessage) -> tuple[EmailMessage | None, list[EmailMessage]]:
    """The part to read as the body, and the attachments. What lies in an attached message stays with it."""
    texts: dict[str, EmailMessage] = {}
    attachments: list[EmailMessage] = []
    pending = [(message, 0)]
    while pending:
        part, depth = pending.pop()
        if depth > _MAX_DEPTH:
            raise damaged("mail message", f"its parts are nested in more than {_MAX_DEPTH} levels")
        kind = part.get_content_type()
        if part.is_multipart() and kind != _MEDIA_TYPE:
            pending += [(child, depth + 1) for child in reversed(_children(part))]
        elif kind in {"text/plain", "text/html"} and not part.is_attachment() and not part.get_filename() and kind not in texts:
            texts[kind] = part
        else:
            attachments.append(part)
    return texts.get("text/plain") or texts.get("text/html"), attachments


def _headers(message: EmailMessage) -> Metadata:
    """Addresses without names, in lower case, so that they can be filtered; the date is the sender's own."""
    people = {name: getaddresses([_line(message, name)]) for name in ("from", "to", "cc")}
    addresses = {name: tuple(address.lower() for _, address in people[name] if address) for name in people}
    date = ""
    if stated := _line(message, "date"):
        with suppress(ValueError):      # no date that anybody could read
            date = parsedate_to_datetime(stated).date().isoformat()
    found: dict[str, FieldValue] = {
        "from": next(iter(addresses["from"]), ""), "from_name": next((name for name, _ in people["from"]), ""),
        "to": addresses["to"] + addresses["cc"], "date": date}
    return {name: value for name, value in found.items() if value}


def _written(headers: Metadata, body: EmailMessage | None, *, title: str) -> Parsed:
    top = Page()
    for name in ("from", "to", "date"):
        value = headers.get(name, "")
        people = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        if name == "from" and headers.get("from_name"):
            people = f"{headers['from_name']} <{people}>"
        top.paragraph(f"{name.capitalize()}: {people}" if people else "", tight=True)
    parts = [("", top.parsed(title, media_type=_MEDIA_TYPE))]
    if body is not None and body.get_content_type() == "text/html":
        parts.append(("", html.whole(_content(body), declared=body.get_content_charset(""))))
    elif body is not None:
        text = Page()
        text.paragraph(decode(_content(body), declared=body.get_content_charset("")).replace("\r\n", "\n").replace("\0", ""))
        parts.append(("", text.parsed(title, media_type=_MEDIA_TYPE)))
    text_, blocks = joined(parts)
    return Parsed(text=text_, blocks=blocks, title=title, media_type=_MEDIA_TYPE, metadata=headers)


def _content(part: EmailMessage) -> bytes:
    """A part's bytes, decoded; an attached message as it was sent."""
    payload = part.get_payload(decode=True)
    if isinstance(payload, bytes):
        return payload
    return b"".join(child.as_bytes() for child in _children(part)[:1])


def _children(part: EmailMessage) -> list[EmailMessage]:
    held = part.get_payload()
    return [child for child in held if isinstance(child, EmailMessage)] if isinstance(held, list) else []


def _free_name(part: EmailMessage, number: int, taken: set[str]) -> str:
    """`attachment/guide.pdf`; a name without one is made from the type, and a second of its kind is numbered."""
    given = PurePosixPath((part.get_filename() or "").replace("\\", "/")).name.strip(". ")
    kind = part.get_content_type()
    suffix = ".eml" if kind == _MEDIA_TYPE else mimetypes.guess_extension(kind) or ".bin"
    if kind == _MEDIA_TYPE and not given.lower().endswith(".eml"):
        given = f"{given or number}.eml"
    name = f"attachment/{given or f'{number}{suffix}'}"
    if name in taken:
        path = PurePosixPath(name)
        name = f"{path.parent}/{path.stem}-{number}{path.suffix}"
    taken.add(name)
    return name


def _line(message: EmailMessage, name: str) -> str:
    return " ".join(str(message.get(name, "")).encode("utf-8", "replace").decode().split())
