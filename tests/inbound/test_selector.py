"""The selector of canonical data: what is taken, and that nothing which could mean all servers is."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handler.errors import Violation
from handler.inbound.extract.selector import parse
from handler.outbound.stop_request import stop_request_event
from handler.stop.model import Selector, StopRequest
from tests.inbound.test_extract import asked as request_of
from tests.inbound.test_extract import violations
from tests.support.events import ONE, event
from tests.test_events_folder import sample, schema_violations

EVERY_BMS = {"metering.resourcetype": "__type_baremetal"}
NO_LITERAL = "must have a character that stands for itself"
BESIDE = "must not be beside ids of servers"


def asked(selector: object, more: dict[str, str] | None = None, **attributes: Any) -> StopRequest:
    """The stop request of a well-formed event with this selector."""
    return request_of(more, data={"selector": selector}, **attributes)


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({"tags": ["env=ci"]}, Selector(tags=("env=ci",))),
        ({"tags": ["a", "b", "a"]}, Selector(tags=("a", "b", "a"))),
        ({"tags": ["__type_baremetal", "env=ci"]}, Selector(tags=("__type_baremetal", "env=ci"))),
        ({"metadata": {"team": "build"}}, Selector(metadata=(("team", "build"),))),
        ({"metadata": {"team": ""}}, Selector(metadata=(("team", ""),))),
        ({"metadata": {**EVERY_BMS, "a": "b"}}, Selector(metadata=(*EVERY_BMS.items(), ("a", "b")))),
        ({"metadata": EVERY_BMS, "name": "ci-*"}, Selector(metadata=(*EVERY_BMS.items(),), name="ci-*")),
        ({"name": "ci-0?"}, Selector(name="ci-0?")),
        (
            {"tags": [" x "], "metadata": {"k": "1"}, "name": "büro *"},
            Selector((" x ",), (("k", "1"),), "büro *"),
        ),
        ({"name": "x" * 255}, Selector(name="x" * 255)),
        (None, None),
    ],
)
def test_a_selector_is_taken_as_it_is_written(selector: object, expected: Selector | None) -> None:
    """Spaces, case and order are kept; null counts as absent."""
    request = asked(selector)
    assert (request.selector, request.server_ids) == (expected, ())


@pytest.mark.parametrize("type_", ["dev.knative.sources.ping", "com.example.ticket", "pubsub"])
def test_every_type_with_canonical_data_can_select(type_: str) -> None:
    """A schedule, a type of the settings, and what is inside of a message of Pub/Sub."""
    expected = Selector(tags=("env=ci",))
    if type_ == "pubsub":
        inner = base64.b64encode(b'{"selector": {"tags": ["env=ci"]}}').decode()
        published: dict[str, Any] = {
            "type": "google.cloud.pubsub.topic.v1.messagePublished",
            "data": {"message": {"data": inner}},
        }
        assert request_of(**published).selector == expected
    else:
        assert asked({"tags": ["env=ci"]}, {"com.example.ticket": ""}, type=type_).selector == expected


NO_TAGS: list[Any] = [[], None, "env=ci", {}, ["x"] * 51]
NO_METADATA: list[Any] = [{}, None, [], "team=build", {str(number): "x" for number in range(129)}]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({}, {"": "must not be empty: it never selects all servers"}),
        ("all", {"": "must be a JSON object"}),
        (["ci-07"], {"": "must be a JSON object"}),
        (True, {"": "must be a JSON object"}),
        ({"tag": ["env=ci"]}, {"": "must have no members but tags, metadata and name"}),
        ({"name": "ci-*", "not": "x"}, {"": "must have no members but tags, metadata and name"}),
        *(({"tags": tags}, {".tags": "must be an array of 1 to 50 tags"}) for tags in NO_TAGS),
        ({"tags": [" ", "", 5, None, "x" * 256]}, {
            ".tags[0]": "must not be blank",
            ".tags[1]": "must not be blank",
            ".tags[2]": "must be a string",
            ".tags[3]": "must be a string",
            ".tags[4]": "must have at most 255 characters",
        }),
        *(({"metadata": metadata}, {".metadata": "must be an object of 1 to 128 entries"})
          for metadata in NO_METADATA),
        *(({"metadata": metadata}, {".metadata": f"each key and value {message}"})
          for metadata, message in (
              ({"shard": 3}, "must be a string"), ({"on": True}, "must be a string"), ({"k": None}, "must be a string"),
              ({"": "x"}, "must not be blank"), ({"k": " "}, "must not be blank"),
              ({"k" * 256: "x"}, "must have at most 255 characters"),
              ({"k": "x" * 256}, "must have at most 255 characters"),
          )),
        *(({"name": name}, {".name": "must not be blank"}) for name in ("", " ", "\t\n")),
        *(({"name": name}, {".name": "must be a string"}) for name in (None, 5, ["ci-*"])),
        ({"name": "x" * 256}, {".name": "must have at most 255 characters"}),
        *(({"name": name}, {".name": NO_LITERAL})
          for name in ("*", "**", "?", "?*", "*?*", "???", "[a-z]*", "[!x]*", "*[!]]", "[]]*", "[*]", "[ -~]*")),
        *(({"name": name}, {".name": "must close each ["}) for name in ("ci-[0", "[", "[]", "[!]", "a[!]*", "[]*")),
        ({"name": "ci-[^0]"}, {".name": "must have [! in place of [^"}),
        ({"tags": ["__type_baremetal"]}, {"": "must not select every bare metal server"}),
        ({"metadata": EVERY_BMS}, {"": "must not select every bare metal server"}),
        ({"tags": ["__type_baremetal"] * 2, "metadata": EVERY_BMS}, {"": "must not select every bare metal server"}),
        ({"tags": [], "metadata": {}, "name": "*"}, {
            ".tags": "must be an array of 1 to 50 tags",
            ".metadata": "must be an object of 1 to 128 entries",
            ".name": NO_LITERAL,
        }),
    ],
)  # fmt: skip
def test_a_selector_that_is_wrong_or_could_mean_all_is_refused(selector: object, expected: dict[str, str]) -> None:
    """Every violation is named; a part that is empty, null or misspelt does not just drop out."""
    assert violations(data={"selector": selector}) == {
        f"data.selector{at}": message for at, message in expected.items()
    }


@pytest.mark.parametrize(
    "given",
    [
        {"data": {"selector": {"name": "ci-*"}, "server_ids": [ONE]}},
        {"data": {"selector": {"name": "ci-*"}, "server_id": ONE}},
        {"data": {"selector": {"name": "ci-*"}}, "subject": ONE},
    ],
)
def test_a_selector_beside_ids_is_ambiguous(given: dict[str, Any]) -> None:
    """Whether both or either was meant cannot be known; the subject counts too if it is an id."""
    assert violations(**given) == {"data.selector": BESIDE}
    assert schema_violations("cloudevent-in.json", event(**given)) != []


def test_a_selector_beside_a_wrong_id_is_ambiguous_as_well() -> None:
    """Both violations are named."""
    assert violations(data={"selector": {"name": "ci-*"}, "server_ids": ["ci-07"]}) == {
        "data.selector": BESIDE,
        "data.server_ids[0]": "must be a UUID",
    }


def test_the_sample_is_taken() -> None:
    """What events/ shows as a good event with a selector is one."""
    assert request_of(**sample("in/selector.json")).selector == Selector(name="ci-*")


def test_a_subject_that_is_not_an_id_is_ignored() -> None:
    """It is another text, as a subject may be."""
    assert asked({"name": "ci-*"}, subject="the build farm").selector == Selector(name="ci-*")


def test_no_fault_repeats_what_was_sent() -> None:
    """Keys of metadata and unknown members are the sender's own text."""
    found: list[Violation] = []
    parse({"marked": 1, "metadata": {"marked": 5}, "tags": [["marked"]], "name": "marked["}, found)
    assert len(found) == 4
    assert "marked" not in repr(found)


_texts = st.sampled_from(["", " ", "a", "env=ci", "__type_baremetal", "metering.resourcetype", "é*", "x" * 256])
_globs = st.text(st.sampled_from("ab*?[]!^-]["), max_size=6)
_selectors = st.dictionaries(
    st.sampled_from(["tags", "metadata", "name", "more"]),
    st.one_of(
        _texts,
        _globs,
        st.lists(_texts, max_size=3),
        st.dictionaries(_texts, _texts, max_size=3),
        st.sampled_from([None, 5]),
    ),
    max_size=3,
)


@given(_selectors | st.builds(lambda name: {"name": name}, _globs))
@example({"name": "[!]"})
@example({"name": "a[]]"})
@example({"name": "[!]]a"})
@example({"name": "[^]a"})
@example({"name": "a\n"})
def test_the_schema_agrees_with_the_code(selector: dict[str, Any]) -> None:
    """What events/ calls a good selector is one, and nothing else."""
    found: list[Violation] = []
    parse(selector, found)
    reported = schema_violations("common.json#/$defs/selector", selector)
    assert (found == []) is (reported == []), (found, reported)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["tags", "metadata", "name", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(_json)
def test_any_json_is_a_selector_or_a_named_fault(value: object) -> None:
    """No value raises, and a selector that is valid has a part."""
    found: list[Violation] = []
    selector = parse(value, found)
    assert bool(found) is (schema_violations("common.json#/$defs/selector", value) != [])
    assert found or any(selector)


def test_a_selector_goes_on_to_the_event_sink_as_it_came() -> None:
    """What `receive_webhook` posts is the same."""
    for selector in ({"tags": ["a"]}, {"metadata": {"k": ""}, "name": "ci-*"}):
        sent = stop_request_event(asked(selector), {})
        assert sent.data == {"selector": selector, "dry_run": False}
        assert asked(json.loads(json.dumps(sent.data))["selector"]).selector == asked(selector).selector
