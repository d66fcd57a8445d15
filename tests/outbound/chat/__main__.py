"""`python -m tests.outbound.chat`: write the golden messages anew, to be reviewed before they are committed."""

from __future__ import annotations

from tests.outbound.chat.test_golden import PAIRS, kept, written

if __name__ == "__main__":
    for chat, sample in PAIRS:
        kept(chat, sample).write_text(written(chat, sample))
