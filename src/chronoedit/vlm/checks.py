"""Whether an answer is what was asked for; each check gives a sentence that says what is wrong, or None."""

from __future__ import annotations

import re

from chronoedit.vlm.prompts import MAX_WORDS, MIN_WORDS, OPENING

QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|«([^»]+)»|(?<!\w)'([^']+)'(?!\w)")
COMMON = frozenset({
    "the", "a", "an", "and", "of", "to", "in", "is", "are", "on", "with", "its", "his", "her", "their", "from", "as",
    "at", "it", "that", "by", "for", "stays", "keeps",
})  # fmt: skip
COMMON_SHARE = 0.15  # of the words of English prose, at the least
LATIN_SHARE = 0.9


def enhanced_prompt_problem(answer: str, request: str) -> str | None:
    """What is wrong with an enhanced prompt: its opening, language, quoted text or length."""
    words = answer.split()
    if not answer.startswith(OPENING):
        return f'It must begin with "{OPENING}".'
    if not is_english(answer):
        return "It must be in English, but for quoted text."
    lost = [text for text in quoted(request) if text not in answer]
    if lost:
        return f"It must have the quoted text exactly as it is: {', '.join(lost)}."
    if not MIN_WORDS <= len(words) <= MAX_WORDS:
        more = "more" if len(words) < MIN_WORDS else "fewer"
        return f"It has {len(words)} words, and must have {MIN_WORDS} to {MAX_WORDS}: use {more}."
    if "\n" in answer.strip():
        return "It must be one paragraph."
    return None


def quoted(text: str) -> list[str]:
    """What stands in quotation marks."""
    return [next(part for part in found if part) for found in QUOTED.findall(text)]


def is_english(text: str) -> bool:
    """Whether text reads as English prose; what is in quotation marks may be in any language."""
    prose = QUOTED.sub(" ", text)
    letters = [letter for letter in prose if letter.isalpha()]
    words = re.findall(r"[a-z]+", prose.lower())
    if not letters or not words:
        return False
    latin = sum(letter.isascii() for letter in letters) / len(letters)
    return latin >= LATIN_SHARE and sum(word in COMMON for word in words) / len(words) >= COMMON_SHARE
