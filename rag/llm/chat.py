"""Chat messages to token ids, so that nothing inside a message can act as a control token.

The chat template is rendered once for each sequence of roles, with marks in place of the contents. Control tokens are
looked for in the template's own text alone; a message's text is encoded as the characters it consists of. A document that
spells `<|im_end|>` therefore reaches the model as plain text, and the number of ids is the exact size of the prompt.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from threading import Lock
from typing import NoReturn

from rag.errors import ConfigError
from rag.llm import Message
from rag.tokens import FileTokenizer

# One element of a rendered template: text, a control token's id, or the content of the message at an index.
Piece = str | int | tuple[int]


class ChatEncoder:
    """A model's chat template together with its tokenizer. Thread-safe."""

    def __init__(self, tokenizer: FileTokenizer, *, template: str, bos_token: str = "", eos_token: str = "") -> None:
        self.tokenizer = tokenizer
        self._template = template
        self._names = {"bos_token": bos_token, "eos_token": eos_token}
        self._rendered: dict[tuple[str, ...], list[Piece]] = {}
        self._lock = Lock()

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Ids of the whole prompt, up to where the assistant begins to speak.

        Raises:
            ConfigError: the model's template does not take these roles.
        """
        ids: list[int] = []
        text = ""
        for piece in self._pieces(tuple(message.role for message in messages)):
            if isinstance(piece, int):
                ids += self.tokenizer.encode(text) if text else []
                ids.append(piece)
                text = ""
            else:
                # Template text and content are joined before they are encoded, as in the model's training.
                text += piece if isinstance(piece, str) else messages[piece[0]].content
        return ids + (self.tokenizer.encode(text) if text else [])

    def _pieces(self, roles: tuple[str, ...]) -> list[Piece]:
        with self._lock:
            if roles not in self._rendered:
                self._rendered[roles] = self._split(roles)
            return self._rendered[roles]

    def _split(self, roles: tuple[str, ...]) -> list[Piece]:
        nonce = secrets.token_hex(8)
        marks = [f"\ue000{nonce}-{index}\ue001" for index in range(len(roles))]
        blank = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
        rendered = render_template(self._template, blank, names=self._names)
        for role, mark in zip(roles, marks, strict=True):
            if mark not in rendered:
                raise ConfigError(f"The model's chat template leaves out the {role} message.", field="reader",
                                  hint="Choose a model whose template takes system and user messages.")
        known: dict[str, Piece] = {**self.tokenizer.added, **{mark: (index,) for index, mark in enumerate(marks)}}
        # Longest first: a token may begin with another one.
        pattern = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
        return [known.get(part, part) for part in re.split(f"({pattern})", rendered) if part]


def render_template(template: str, messages: Sequence[dict[str, str]], *, names: dict[str, str]) -> str:
    """A chat template as its authors test it (the Jinja settings of Hugging Face transformers), in a sandbox.

    Raises:
        ConfigError: the template is broken, or refuses these messages.
    """
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(reason: str) -> NoReturn:
        raise TemplateError(reason)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    environment.globals.update(raise_exception=refuse, strftime_now=lambda form: datetime.now().strftime(form))
    try:
        return environment.from_string(template).render(messages=list(messages), add_generation_prompt=True, **names)
    except (TemplateError, TypeError, ValueError) as error:
        raise ConfigError(f"The model's chat template refuses the prompt: {error}", field="reader",
                          hint="Choose a model whose template takes system and user messages.") from error
