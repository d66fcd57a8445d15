"""What people type into each chat: a stop only of the servers that are in the list."""

from __future__ import annotations

import re
from typing import Any

import pytest

from handler.inbound.webhooks.grammar import NotUnderstood, StopCommand, parse
from tests.inbound.webhooks.authentication import receiver, send
from tests.inbound.webhooks.chat_texts import REFUSED, TEXTS, filled_in
from tests.inbound.webhooks.receiver import ONE, THREE, TWO, text_of

NAMES = {ONE: "A", TWO: "B", THREE: "C"}


def outcome_of(path: str, **changes: Any) -> tuple[str, str]:
    """Send a message to a chat; return what was handed on, in the words of the table, and the response."""
    here = receiver(path)
    response = text_of(send(here, path, **changes))
    if not here.handed:
        return REFUSED, response
    ids = [NAMES[id_] for id_ in here.only().server_ids]
    return " ".join(["plan" if here.only().dry_run else "stop", *ids]), response


def slack(text: str, command: str = "/bms") -> tuple[str, str]:
    """Use a slash command of Slack, which has entities for three characters."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return outcome_of("/slack", text=escaped, command=command)


def trigger(path: str, text: str, word: str = "!bms") -> tuple[str, str]:
    """Write a message that an outgoing webhook of Mattermost or Rocket.Chat sends."""
    return outcome_of(path, text=text, trigger_word=word, command="")


@pytest.mark.parametrize(("text", "outcome"), TEXTS)
def test_each_text_asks_for_what_it_says_and_no_more(text: str, outcome: str) -> None:
    """As the text of a slash command; the answer repeats what was understood or quotes what was not."""
    got, answer = slack(text)
    assert got == outcome
    if outcome == REFUSED:
        assert answer.startswith("Nothing was handed on. Not understood: `")
        quoted = re.findall("`(.+?)`", answer)
        assert len(quoted[0]) <= 60
        example = parse(quoted[1])
        assert isinstance(example, StopCommand)
        assert example.dry_run
    else:
        verb, *names = outcome.split()
        assert answer.startswith("Understood: plan (dry run)" if verb == "plan" else "Understood: stop")
        assert all(id_ in answer for id_, name in NAMES.items() if name in names)
        assert ("Reason: `" in answer) == ("because" in text.lower())


@pytest.mark.parametrize(("text", "outcome"), TEXTS[::7])
def test_all_chats_without_html_read_the_same(text: str, outcome: str) -> None:
    """Mattermost's commands, and the messages after a trigger word."""
    assert outcome_of("/mattermost", text=text, command="/bms")[0] == outcome
    assert trigger("/mattermost", f"!bms {text}")[0] == outcome
    assert trigger("/rocketchat", f"!bms {text}")[0] == outcome


@pytest.mark.parametrize(
    ("command", "text", "outcome"),
    [
        ("/bms-stop", "A, B", "stop A B"),
        ("/bms-stop", "\n- A\n- B", "stop A B"),
        ("/bms-stop", "`A`", "stop A"),
        ("/bms-stop", "A --dry-run", "plan A"),
        ("/bms-stop", "A because hot", "stop A"),
        ("/bms-stop", "plan A", "plan A"),
        ("/bms-stop", "stop A", "stop A"),
        ("/bms-stop", "A hot", REFUSED),
        ("/bms-stop", "A not B", REFUSED),
        ("/bms-stop", "now A", REFUSED),
        ("/bms-stop", "> A", REFUSED),
        ("/bms-stop", "~A~", REFUSED),
        ("/bms-stop", "keep A 2h", REFUSED),
        ("/bms-plan", "A", "plan A"),
        ("/bms-plan", "plan A", "plan A"),
        ("/bms-plan", "stop A", REFUSED),
        ("/bms-plan", "`stop A`", REFUSED),
        ("/bms-plan", "stop A --dry-run", REFUSED),
        ("/BMS-PLAN", "STOP A", REFUSED),
        ("/bms-plan", "keep A 2h", REFUSED),
        ("/bmsplan", "stop A", REFUSED),
        ("/bms-stop-dry-run", "A", "plan A"),
        ("/bms-stop-dry-run", "stop A", REFUSED),
        ("/bms-stop-dryrun", "A B", "plan A B"),
        ("/bms_dry_run", "A", "plan A"),
        ("/bms-dry\u200b-run", "stop A", REFUSED),
        ("/bms-dry-run", "stop A", REFUSED),
        ("/stop-plan", "A", "plan A"),
        ("/stop-plan", "stop A", REFUSED),
        ("/bms-keep", "stop A", REFUSED),
        ("/bms-keep", "A", REFUSED),
        ("/stop-or-keep", "A", REFUSED),
        ("/stop-or-keep", "stop A", "stop A"),
        ("/bms", "A", REFUSED),
        ("/nonstop", "A", REFUSED),
        ("/planet", "stop A", "stop A"),
    ],
)
def test_the_name_of_the_command_counts(command: str, text: str, outcome: str) -> None:
    """Its verb may be left out, no other may be typed, and with one that only plans, only dry runs can be requested."""
    assert slack(filled_in(text), command)[0] == outcome
    assert outcome_of("/mattermost", text=filled_in(text), command=command)[0] == outcome


@pytest.mark.parametrize("path", ["/mattermost", "/rocketchat"])
@pytest.mark.parametrize(
    ("word", "text", "outcome"),
    [
        ("!bms", "!bms plan A", "plan A"),
        ("!bms", "!BMS plan A", "plan A"),
        ("!bms", "!bms: plan A", "plan A"),
        ("!bms", "  !bms, stop A", "stop A"),
        ("!bms", "please !bms stop A", REFUSED),
        ("!bms", "stop A !bms", REFUSED),
        ("!bms", "stop A because of !bms", REFUSED),
        ("!bms", "don't !bms stop A", REFUSED),
        ("!bms", "> !bms stop A", REFUSED),
        ("!bms", "!bms-prod stop A", REFUSED),
        ("bms", "bmsstop A", REFUSED),
        ("because", "stop A because hot", REFUSED),
        ("stop", "stop A", "stop A"),
        ("stop", "stop: A", "stop A"),
        ("stop", "stop plan A", "plan A"),
        ("stop", "stops working, see A", REFUSED),
        ("stop", "please don't stop A", REFUSED),
        ("stop", "A stop", REFUSED),
        ("!", "!stop A", "stop A"),
    ],
)
def test_a_message_must_begin_with_its_trigger_word(path: str, word: str, text: str, outcome: str) -> None:
    """Text before a trigger word that may be anywhere is refused."""
    got, answer = trigger(path, filled_in(text), word)
    assert got == outcome
    assert ("Not understood" in answer) == (outcome == REFUSED)


@pytest.mark.parametrize(
    ("markup", "outcome"),
    [
        ("<at>BMS</at>&nbsp;stop A\n", "stop A"),
        ("<at>BMS</at>, stop A", "stop A"),
        ("<at>BMS</at>: plan A", "plan A"),
        ("\r\n<at>BMS</at>&nbsp;\r\nstop A&nbsp;\r\nB&nbsp;", "stop A B"),
        ("&#8203;<at>BMS</at> stop A", "stop A"),
        ("<p><at>BMS</at> stop A<br>B</p><p>C</p>", "stop A B C"),
        ("<at>BMS</at> stop A<br/>B", "stop A B"),
        ("<at>BMS</at> stop <code>A</code>", "stop A"),
        ("<div><at>BMS</at></div><pre><code>stop A\nB</code></pre>", "stop A B"),
        ("<at>BMS</at> stop <pre>A\nB</pre>", "stop A B"),
        ("<at>BMS</at> stop<ul><li>A</li><li><p>B</p></li></ul>", "stop A B"),
        ("<at>BMS</at> stop<ol>\n<li>A</li>\n<li>B</li>\n</ol>", "stop A B"),
        ("<at>BMS</at> stop <table><tr><td>A</td></tr><tr><td>B</td></tr></table>", "stop A B"),
        ('<at id="0">BMS</at> <b>stop</b> <span style="color:red">A</span>', "stop A"),
        (
            '<div><div><span itemscope="" itemtype="http://schema.example/Mention"><at>BMS</at></span>'
            "&nbsp;stop <code>A</code> because &lt;idle&gt;</div>\n</div>",
            "stop A",
        ),
        ("<at>BMS plan</at> A", "plan A"),
        ("<at>BMS plan</at> stop A", REFUSED),
        ("<at>BMS <b>dry-run</b></at> stop A", REFUSED),
        ('<quoted messageId="1764320000000"/> <at>BMS</at> plan A', "plan A"),
        ('<quoted messageId="1764320000000"></quoted> <at>BMS</at> plan A', "plan A"),
        ("<at>BMS</at>&nbsp;stop A&nbsp;&#8203;--dry-run", "plan A"),
        ("<at>BMS</at> stop A -&shy;-dry-run", "plan A"),
        ("<at>BMS</at> stop A &mdash;<b>dry</b>-run", "plan A"),
        ("<at>BMS</at> stop A because it is <i>hot</i>, says <at>Ada</at>", "stop A"),
        ('<at>BMS</at> stop A because <a href="https://tickets.example/OPS-1">OPS-1</a>', "stop A"),
        # Quoted.
        ("<blockquote>stop A</blockquote>\n<p><at>BMS</at> what does that do?</p>", REFUSED),
        ("<blockquote>stop A</blockquote><at>BMS</at>", REFUSED),
        ("<at>BMS</at> <blockquote>stop A</blockquote>", REFUSED),
        ("<at>BMS</at> stop A <blockquote><p>B</p></blockquote>", REFUSED),
        ('<quoted messageId="1">stop A</quoted> <at>BMS</at>', REFUSED),
        ("<BLOCKQUOTE CLASS='x'><at>BMS</at> stop A</BLOCKQUOTE>", REFUSED),
        # Struck out.
        ("<div><at>BMS</at> stop A <s>B</s> idle</div>", REFUSED),
        ("<at>BMS</at> stop A <s>B</s>", REFUSED),
        ("<at>BMS</at> stop A <b><del>B</del></b>", REFUSED),
        ("<at>BMS</at> stop A <strike><span>B</span></strike>", REFUSED),
        ("<s><at>BMS</at> stop A</s>", REFUSED),
        ("<at>BMS</at> <s>stop</s> A", REFUSED),
        ('<at>BMS</at> stop A <span style="text-decoration: line-through">B</span>', REFUSED),
        ('<at>BMS</at> stop A <span style="display:none">B</span>', REFUSED),
        # Not shown, or shown otherwise.
        ('<at>BMS</at> stop A <a href="https://console.example/B">B</a>', REFUSED),
        ('<at>BMS</at> stop <a href="https://console.example/B">A</a>', REFUSED),
        ("<at>BMS</at> stop A because <a href='https://console.example/B'>hot</a>", REFUSED),
        ("<at>BMS</at> stop A <!-- not --> B", REFUSED),
        ("<at>BMS</at> stop A <script>B</script>", REFUSED),
        ("<at>BMS</at> stop A <c0ffee00-1111>", REFUSED),
        ('<at>BMS</at> stop A <span title="> B', REFUSED),
        ("<at>BMS</at> stop <b>A</b><b>B</b>", REFUSED),
        ("<at>BMS</at> stop A dry<br>run", REFUSED),
        # A mention elsewhere.
        ("<at>Ada</at> <at>BMS</at> stop A", REFUSED),
        ("don't <at>BMS</at> stop A", REFUSED),
        ("<at>BMS</at> stop A <at>Ada</at> B", REFUSED),
        ("stop A <at>BMS</at>", REFUSED),
        ("<div><at>BMS</at> stop <code>A</code> &lt;idle&gt;</div>", REFUSED),
    ],
)
def test_the_html_of_teams_keeps_its_meaning(markup: str, outcome: str) -> None:
    """Line ends, code and lists are read; quoted, struck-out, linked and unknown parts are refused."""
    got, answer = outcome_of("/teams", text=filled_in(markup))
    assert got == outcome
    assert ("Not understood" in answer) == (outcome == REFUSED)


def test_slack_escapes_three_characters_and_no_others() -> None:
    """An entity that a person typed stays what was typed."""
    for text, outcome in (
        ("stop A because R&amp;D is done, 5 &lt; 6", "stop A"),
        ("stop A&amp;#8203; B", REFUSED),
        ("stop A&nbsp;B", REFUSED),
    ):
        assert outcome_of("/slack", text=filled_in(text), command="/bms")[0] == outcome


@pytest.mark.parametrize("text", ["", " ", "help", "HELP", "`help`", "\u200b"])
def test_help_is_answered(text: str) -> None:
    """Also if nothing was typed."""
    got, answer = slack(text)
    assert got == REFUSED
    assert answer.startswith("stop ID[, ID ...] [--dry-run] [because REASON]")


def test_what_was_typed_is_quoted_without_its_markup() -> None:
    """No mention, link or end of the code span comes out of the quotation."""
    _, answer = slack("stop `<!channel> <https://x.example|y>` @here\x07\u202e\u2028&amp; " + "z" * 500)
    first = answer.splitlines()[0]
    assert len(first) < 120
    assert first.count("`") == 2
    assert not set("<>@&\x07\u202e\u2028") & set(first)
    _, answer = slack(filled_in("stop A because <!channel> `x` @here"))
    assert "Reason: `\u2039!channel\u203a \u02cbx\u02cb \uff20here`." in answer


def test_the_answer_of_the_grammar_is_what_the_chat_quotes() -> None:
    """One id, one line."""
    found = parse(filled_in("stop A\nnot\n B"))
    assert isinstance(found, NotUnderstood)
    assert found.quoted == f"not {TWO}"
