"""Reads the XML of a stream as it comes: whole stanzas, within bounds; no I/O.

The protocol knows no documents with a DTD, no comments and no instructions (RFC 6120, section 11.1), so
nothing can stand for something else. A stanza that is too large, too deep or has too many elements is not
kept: its outermost element comes alone, marked with `TOO_LARGE`, so that its sender can be answered and
nobody else notices.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from xml.etree.ElementTree import Element as Element  # nosec B405 B313
from xml.parsers import expat  # nosec B407

DEPTH_MOST = 32
ELEMENTS_MOST = 4096
TOO_LARGE = "presque-too-large"
"""The attribute that a stanza has of which only the outermost element was kept."""


class BadStream(Exception):
    """What came is not a stream of XMPP. `str(error)` says why; it quotes nothing."""


class Parser:
    """Takes bytes, gives `start` and `end` events of elements, as `XMLPullParser` does. Inside a stanza only
    its outermost element has events."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._events: deque[tuple[str, Element]] = deque()
        self._open: list[Element] = []  # the stream, the stanza, what is in it
        self._skipping = 0  # how deep we are in what is not kept
        self._elements = 0
        self._began = 0
        self._texts: list[str] = []
        parser = self._parser = expat.ParserCreate(namespace_separator="}")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = self._forbidden
        parser.EntityDeclHandler = self._forbidden
        parser.CommentHandler = self._forbidden
        parser.ProcessingInstructionHandler = self._forbidden

    def feed(self, data: bytes | str) -> None:
        """Take what has come. Raises `BadStream`."""
        try:
            self._parser.Parse(data)
        except expat.ExpatError as error:
            raise BadStream(expat.errors.messages[error.code]) from None

    def read_events(self) -> Iterator[tuple[str, Element]]:
        """What has become whole since the last time."""
        while self._events:
            yield self._events.popleft()

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if self._skipping:
            self._skipping += 1
            return
        self._end_text()
        depth = len(self._open)
        if depth == 1:
            self._began, self._elements = self._parser.CurrentByteIndex, 0
        self._elements += 1
        if depth > 1 and (depth > DEPTH_MOST or self._elements > ELEMENTS_MOST or self._is_large()):
            self._skipping = 1
            self._open[1].set(TOO_LARGE, "1")
            return
        element = Element(_tag(name), {_tag(key): value for key, value in attributes.items()})
        if depth:
            if depth > 1:
                self._open[-1].append(element)
        else:
            self._events.append(("start", element))
        self._open.append(element)
        if depth == 1:
            self._events.append(("start", element))

    def _end(self, _name: str) -> None:
        if self._skipping:
            self._skipping -= 1
            return
        self._end_text()
        element = self._open.pop()
        depth = len(self._open)
        if depth == 1:
            if self._is_large():
                element.set(TOO_LARGE, "1")
            if TOO_LARGE in element.attrib:
                for child in list(element):
                    element.remove(child)
        if depth < 2:
            self._events.append(("end", element))

    def _text(self, text: str) -> None:
        if not self._skipping and len(self._open) > 1 and not self._is_large():
            self._texts.append(text)

    def _end_text(self) -> None:
        if self._texts:
            text = "".join(self._texts)
            self._texts.clear()
            inside = self._open[-1]
            if len(inside):
                inside[-1].tail = (inside[-1].tail or "") + text
            else:
                inside.text = (inside.text or "") + text

    def _is_large(self) -> bool:
        return self._parser.CurrentByteIndex - self._began > self._most

    def _forbidden(self, *_what: object) -> None:
        raise BadStream("a stream has no declarations, comments or instructions")


def _tag(name: str) -> str:
    """As ElementTree writes names with a namespace."""
    return f"{{{name}" if "}" in name else name
