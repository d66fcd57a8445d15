"""What people type: `stop ID [ID ...] [--dry-run] [reason ...]`, `plan ID ...`, `help`.

A stop is a power cut, so whatever could be a slip of the hand is refused with an explanation: an id that is nearly one,
an id after the reason has begun, an option that does not exist. A rehearsal is understood however its dashes came out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from handler.inbound.extract import UUID

HELP = (
    "stop ID [ID ...] [--dry-run] [reason ...]: cut the power of these servers\n"
    "plan ID [ID ...]: only say what a stop would do\n"
    "help: this text\n"
    "An ID is the UUID of a server."
)

# Phones and chat programs make one long dash of two short ones.
_DASH = "[-\u2010-\u2015\u2212\ufe63\uff0d]"
_DRY_RUN = re.compile(f"{_DASH}*dry{_DASH}?_?run", re.IGNORECASE)
_OPTION = re.compile(f"{_DASH}+[^\\W\\d].*")
# People paste ids with what stands around them.
_AROUND = " `'\"\u201c\u201d\u2018\u2019,;:.!()[]{}*_~<>"
_NEARLY_AN_ID = re.compile(
    f"(?=.*[0-9])([0-9a-z]+{_DASH}){{3,}}[0-9a-z]*|[0-9a-f]{{32}}|(?=.{{12}})([0-9a-f]+{_DASH}){{2,}}[0-9a-f]*",
    re.IGNORECASE,
)
_PART_OF_AN_ID = re.compile(f"(?=.*[0-9])(?=.*[a-f])[0-9a-f]{{8}}[0-9a-f]*({_DASH}[0-9a-f]*)*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Command:
    """What somebody asks for.

    Attributes:
        server_ids: lower case, at least one, no repeats.
        reason: may be empty.
    """

    server_ids: tuple[str, ...]
    dry_run: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Misunderstood:
    """Nothing to act on.

    Attributes:
        why: a sentence for the person; empty if help was asked for.
    """

    why: str = ""


def parse(text: str, name: str = "") -> Command | Misunderstood:
    """Understand a line of text.

    Args:
        text: without the command's name, trigger word or mention.
        name: the command's name, trigger word or mention. If `stop` or `plan` is a word of it (`/bms-stop`), then
            ids alone are enough.
    """
    words = text.split()
    implied = {word for word in re.split(r"[^a-z]+", name.lower()) if word in ("stop", "plan")}
    verb = words[0].lower().strip(_AROUND) if words else "help"
    if len(implied) == 1 and words and _id(words[0]):
        (verb,) = implied
    else:
        words = words[1:]
    if verb == "help":
        return Misunderstood()
    if verb not in ("stop", "plan"):
        return Misunderstood("That is no command here.")
    return _errand(words, rehearse=verb == "plan")


def _errand(words: list[str], *, rehearse: bool) -> Command | Misunderstood:
    plain = [word for word in words if not _DRY_RUN.fullmatch(word.strip(_AROUND))]
    count = next((at for at, word in enumerate(plain) if not _id(word)), len(plain))
    ids, rest = plain[:count], plain[count:]
    if any(_id(word) for word in rest):
        return Misunderstood("Ids come first, then the reason: there is one more id in it.")
    bare = [word.strip(_AROUND) for word in rest]
    if any(_NEARLY_AN_ID.fullmatch(word) for word in bare) or (bare and _PART_OF_AN_ID.fullmatch(bare[0])):
        return Misunderstood("Something in it looks like an id, and is no whole one.")
    if re.search(r"\bdry\s+run\b", " ".join(bare), re.IGNORECASE):
        return Misunderstood("Write --dry-run as one word to rehearse, or leave those words out of the reason.")
    if any(_OPTION.fullmatch(word) for word in bare):
        return Misunderstood("There is no such option; the only one is --dry-run.")
    if not ids:
        return Misunderstood("It names no server.")
    return Command(
        server_ids=tuple(dict.fromkeys(_id(word) for word in ids)),
        dry_run=rehearse or len(plain) < len(words),
        reason=" ".join(rest),
    )


def _id(word: str) -> str:
    """The id that a word is, in lower case; empty if it is none."""
    bare = word.strip(_AROUND)
    return bare.lower() if UUID.fullmatch(bare) else ""
