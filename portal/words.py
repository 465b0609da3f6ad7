"""A sentence that is made in one place and read in another, perhaps in another language. Pure.

Where it is made, Django may not even be set up: the text is only marked so that its translation is collected.
Who shows it looks the translation up by the text and fills the parameters in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


def marked(text: str) -> str:
    """``text`` itself. Imported as ``_``, the name by which texts to translate are found."""
    return text


@dataclass(frozen=True, slots=True)
class Words:
    """A sentence: English text with ``%(name)s`` for each parameter."""

    text: str
    params: Mapping[str, object] = field(default_factory=dict)

    def put(self, translate: Callable[[str], str]) -> str:
        """The sentence in the language of ``translate``, which gives the translation of a text."""
        values = {
            name: value.put(translate) if isinstance(value, Words) else value for name, value in self.params.items()
        }
        return translate(self.text) % values

    def english(self) -> str:
        """The sentence in English."""
        return self.put(lambda text: text)
