"""The reader of the environment: parsers, secrets, unknown names, and every setting declared once."""

from __future__ import annotations

import base64
import copy
import json
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import tests
from handler.settings import TARGETS, declared, env, keep_servers, notify_chat, receive_webhook, stop_servers
from handler.settings.env import Env, Secret, Setting
from tests.settings.environments import LEAST, MARK, URN, names, read, violations

FROM_ENVIRON: Mapping[str, Callable[[Mapping[str, str]], object]] = {
    "stop_servers": stop_servers.from_environ,
    "receive_webhook": receive_webhook.from_environ,
    "notify_chat": notify_chat.from_environ,
    "keep_servers": keep_servers.from_environ,
}
LONG = f"{MARK}-{'x' * 32}"
BASE64 = base64.b64encode(LONG.encode()).decode()
# With these every target reads all its settings.
EVERYTHING = {
    **LEAST,
    "AUTOSTOP_INBOUND_AUTH": "oidc",
    "AUTOSTOP_OIDC_ISSUER": "https://issuer.example",
    "AUTOSTOP_OIDC_AUDIENCE": "a",
    "AUTOSTOP_OIDC_SUBJECTS": "s",
    "AUTOSTOP_EVENT_SINK": "http://sink.example/",
}


# --- the declarations


def test_a_setting_is_declared_once_with_all_that_the_tables_show() -> None:
    """Each name stands once, with a description, a default that its parser takes, and targets that exist."""
    found = declared()
    assert len(found) > 90
    assert len({setting.name for setting in found}) == len(found)
    for setting in found:
        assert setting.description
        # It would begin another cell of the tables.
        assert "|" not in setting.description + setting.shown_default
        assert setting.targets
        assert set(setting.targets) <= set(TARGETS)
        if setting.default:
            setting.parse(setting.default)


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_reads_what_is_declared_for_it(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing more, as settings of other targets are ignored, and nothing less."""
    seen: set[str] = set()
    text = Env.text

    def watched(self: Env, setting: Setting[Any]) -> str | None:
        seen.add(setting.name)
        return text(self, setting)

    monkeypatch.setattr(Env, "text", watched)
    FROM_ENVIRON[target](EVERYTHING)
    if target in ("stop_servers", "keep_servers"):
        # The variables that only some kinds of login read.
        FROM_ENVIRON[target]({"AUTOSTOP_INBOUND_AUTH": "none", "RUNTIME_PROJECT_ID": "p", "OS_REGION_NAME": "eu-de"})
    assert seen == {setting.name for setting in declared() if target in setting.targets}


@pytest.mark.parametrize("setting", declared(), ids=lambda setting: setting.name)
def test_a_value_that_is_not_understood_is_named(setting: Setting[Any]) -> None:
    """By every target that reads it, whatever else is set."""
    for value in ("maybe", "\x01", "-", ","):
        try:
            setting.parse(value)
        except ValueError:
            for target in setting.targets:
                found = violations({**EVERYTHING, setting.name: value}, FROM_ENVIRON[target])
                assert set(names(found)) == {setting.name}


@pytest.mark.parametrize("target", ["stop_servers", "notify_chat", "keep_servers"])
def test_a_target_with_callers_does_not_start_without_inbound_auth(target: str) -> None:
    """There is no default, and the message has the meaning of each choice."""
    environ = {name: value for name, value in EVERYTHING.items() if name != "AUTOSTOP_INBOUND_AUTH"}
    assert violations(environ, FROM_ENVIRON[target]) == (
        "AUTOSTOP_INBOUND_AUTH must be set: `bearer` (with AUTOSTOP_BEARER_TOKENS), `oidc` (with "
        "AUTOSTOP_OIDC_ISSUER), or `none` to accept every caller that reaches this function.",
    )


def test_each_setting_is_set_in_a_test() -> None:
    """What it changes, only its own test knows."""
    text = "".join(path.read_text() for path in Path(tests.__path__[0]).rglob("*.py"))
    for name in (setting.name for setting in declared() if setting.name.startswith("AUTOSTOP_")):
        # A test may set those of all chats in a loop.
        ending = re.sub("AUTOSTOP_(NOTIFY_[A-Z]+|SLACK|MATTERMOST|TEAMS|ROCKETCHAT)_", "}_", name)
        assert re.search(rf"\b{name}\b|{ending}\b", text), f"a test in tests/settings/ must set {name}"


@pytest.mark.parametrize("target", TARGETS)
def test_the_settings_of_one_target_are_ignored_by_others(target: str) -> None:
    """One image and one Secret can serve all of them; a bad value counts only where it is read."""
    others = [setting for setting in declared() if target not in setting.targets]
    assert others
    assert FROM_ENVIRON[target]({**EVERYTHING, **{setting.name: "\x01" for setting in others}})


def test_all_settings_of_a_function_fit_into_functiongraph() -> None:
    """It accepts 4096 characters; a setting without a default has sixty here."""
    ours = {
        setting.name: setting.default or "x" * 60
        for setting in declared()
        if "stop_servers" in setting.targets and setting.name.startswith("AUTOSTOP_")
    }
    assert len(json.dumps({**ours, "OS_REGION_NAME": "eu-de"})) < 4096


# --- unknown names


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("AUTOSTOP_DRYRUN", "; the nearest is AUTOSTOP_DRY_RUN"),
        ("AUTOSTOP_MAX_SERVER", "; the nearest is AUTOSTOP_MAX_SERVERS"),
        ("AUTOSTOP_PROTECTED", "; the nearest is AUTOSTOP_PROTECT"),
        ("AUTOSTOP_SLACK_SIGNING_SECRETS", "; the nearest is AUTOSTOP_SLACK_SIGNING_SECRET"),
        ("AUTOSTOP_QQQQQQQQQQQQQQQQ", ""),
    ],
)
@pytest.mark.parametrize("target", TARGETS)
def test_an_unknown_name_is_refused_with_the_nearest_known(target: str, name: str, nearest: str) -> None:
    """A misspelt guard would silently be off. The names of all targets are known to each."""
    found = violations({**EVERYTHING, name: MARK}, FROM_ENVIRON[target])
    assert found == (f"{name} must be the name of a setting{nearest}.",)


@pytest.mark.parametrize(
    "name",
    [
        "AUTOSTOP_SERVICE_HOST",
        "AUTOSTOP_SERVICE_PORT",
        "AUTOSTOP_SERVICE_PORT_HTTP",
        "AUTOSTOP_PORT",
        "AUTOSTOP_PORT_80_TCP",
        "AUTOSTOP_PORT_80_TCP_PROTO",
        "AUTOSTOP_PORT_80_TCP_PORT",
        "AUTOSTOP_PORT_80_TCP_ADDR",
        "AUTOSTOP_EVENT_DISPLAY_SERVICE_HOST",
    ],
)
def test_service_links_of_kubernetes_are_ignored(name: str) -> None:
    """A service of that name in the namespace must not keep the function from starting."""
    assert repr(read(**{name: "tcp://10.0.0.1:80"})) == repr(read())


def test_names_without_the_prefix_are_not_checked() -> None:
    """They are of other programs."""
    assert repr(read(PATH="/bin", OS_FOO="x", K_SERVICE="x", MY_AUTOSTOP_X="z")) == repr(read())


# --- secrets

PLACEHOLDERS = [
    "changeme",
    "ChangeMe",
    "PASSWORD",
    "secret",
    "Example",
    "<your-token-goes-here>",
    "<>",
    "${GRAFANA_WEBHOOK_TOKEN}",
    "{{webhook_token_of_grafana}}",
    "$(GRAFANA_WEBHOOK_TOKEN)",
]
# The form of a value that is right, where it is not any 16 characters.
FORMS = {
    "AUTOSTOP_TEAMS_SECRET": lambda text: base64.b64encode(text.encode()).decode(),
    "AUTOSTOP_GITLAB_SIGNING_TOKEN": lambda text: f"whsec_{base64.b64encode(text.encode()).decode()}",
}
CHOSEN = [
    (target, setting)
    for setting in declared()
    if setting.secret and setting.name.startswith("AUTOSTOP_") and not setting.name.endswith("_URL")
    for target in setting.targets
]


def _with(setting: Setting[Any], value: str) -> dict[str, str]:
    bearer = {"AUTOSTOP_INBOUND_AUTH": "bearer", "AUTOSTOP_BEARER_TOKENS": LONG}
    auth = bearer if setting.name in ("AUTOSTOP_BEARER_TOKENS", "AUTOSTOP_APPROVER_TOKENS") else {}
    return {**EVERYTHING, **auth, setting.name: value}


@pytest.mark.parametrize(("target", "setting"), CHOSEN, ids=[f"{target}-{each.name}" for target, each in CHOSEN])
def test_a_secret_is_not_a_placeholder_has_sixteen_characters_and_is_not_shown(
    target: str, setting: Setting[Any]
) -> None:
    """The placeholder of a template is known to everyone. Of base64 the bytes count; of a list, each item."""
    form: Callable[[str], str] = FORMS.get(setting.name, str)
    from_environ = FROM_ENVIRON[target]
    for placeholder in PLACEHOLDERS:
        (found,) = violations(_with(setting, placeholder), from_environ)
        assert found == f"{setting.name} must be a secret, not a placeholder for one."
    (found,) = violations(_with(setting, form("a" * 15)), from_environ)
    assert found.startswith(f"{setting.name} must ")
    assert "at least 16" in found
    if setting.name not in ("AUTOSTOP_APPROVAL_KEYS", "AUTOSTOP_ACTION_KEYS"):
        from_environ(_with(setting, form("a" * 16)))
        from_environ(_with(setting, form("not-changeme-but-longer")))
    if setting.name.endswith("S"):
        assert violations(_with(setting, f"{LONG},short"), from_environ)
        assert violations(_with(setting, f"{LONG},<placeholder-for-a-token>"), from_environ)


@pytest.mark.parametrize("target", TARGETS)
def test_no_secret_is_shown(target: str) -> None:
    """In no `repr` of the settings, whatever the form of the secret."""
    secrets = {setting for setting in declared() if setting.secret and target in setting.targets}
    urls = {setting.name: f"https://chat.example/{LONG}" for setting in secrets if setting.name.endswith("_URL")}
    others = {each.name: FORMS.get(each.name, str)(LONG) for each in secrets if each.name not in urls}
    sink = {"AUTOSTOP_RESULT_SINK": "http://sink/", "AUTOSTOP_NOTIFY_DEFAULT": "slack", "OS_AUTH_TYPE": "password"}
    found = FROM_ENVIRON[target]({**EVERYTHING, **sink, **urls, **others, "AUTOSTOP_INBOUND_AUTH": "bearer"})
    assert "Secret(***)" in repr(found)
    assert MARK not in f"{found!r} {found!s} {found}"
    assert BASE64 not in repr(found)


def test_a_setting_with_the_name_of_a_secret_is_declared_as_one() -> None:
    """Secrets of the cloud and URLs of chats are issued elsewhere."""
    called = {setting.name for setting in declared() if re.search("(TOKENS?|SECRET|KEYS|PASSWORD)$", setting.name)}
    assert called <= {setting.name for setting in declared() if setting.secret}, "must have secret=True"
    assert {name for name in called if name.startswith("AUTOSTOP_")} <= {setting.name for _, setting in CHOSEN}


def test_a_secret_does_not_show() -> None:
    """Copying does not turn it into text."""
    for secret in (Secret(MARK), copy.deepcopy(Secret(MARK)), pickle.loads(pickle.dumps(Secret(MARK)))):
        assert f"{secret!r} {secret!s} {secret} {[secret]}" == " ".join(["Secret(***)"] * 3 + ["[Secret(***)]"])
        assert secret.reveal() == MARK
    assert repr(Secret()) == "Secret()"
    assert not Secret()


@pytest.mark.parametrize("target", TARGETS)
def test_no_violation_quotes_a_value(target: str) -> None:
    """A value in the wrong variable may be a password."""
    for value in (f"{MARK} \x01 {MARK}", f"https://user:{MARK}@host/", f"smn:{MARK}", f"{URN}/{MARK}"):
        environ = {setting.name: value for setting in declared() if setting.name != "OS_CLOUD"}
        found = violations({**environ, "AUTOSTOP_PASSWORD": MARK}, FROM_ENVIRON[target])
        assert "AUTOSTOP_PASSWORD" in names(found)
        assert MARK not in "".join(found)


# --- parsers

PARSED: list[tuple[Callable[[str], object], Mapping[str, object]]] = [
    (
        lambda text: env.duration(text).total_seconds(),
        {"500ms": 0.5, "20s": 20, "15m": 900, "1h": 3600, "2d": 172800, "90": 90, "0": 0, "1.5m": 90, " 3 s ": 3}
        | {"365d": 31536000},
    ),
    (
        env.size,
        {"1": 1, "65536": 65536, "1MiB": 1048576, "512 kib": 524288, "2MB": 2000000, "3KB": 3000, "7b": 7},
    ),
    (
        env.boolean,
        {**dict.fromkeys(["true", "1", "yes", "on", "TRUE", " On "], True)}
        | dict.fromkeys(["false", "0", "no", "off", "No"], False),
    ),
    (env.whole(1, 10), {"1": 1, " 10 ": 10}),
    (env.pair, {"autostop=never": ("autostop", "never"), " a = b ": ("a", "b"), "a=b=c": ("a", "b=c")}),
    (
        env.http_url,
        {
            text: text.strip()
            for text in (
                "http://sink",
                "https://sink.example:8443/path?query=1",
                "http://[::1]:8080/",
                " http://sink/ ",
                "HTTP://sink",
            )
        },
    ),
]
REFUSED: list[tuple[Callable[[str], object], str, list[str]]] = [
    (
        env.duration,
        "must be (a duration such as 20s, 15m or 1h|at most a year)",
        ["", "s", "-5s", "5 seconds", "1h30m", "5M", "1e3", "inf", "nan", "366d", "9" * 5000, "\u0665s", ".5s", "5.s"],
    ),
    (
        env.size,
        "must be a size such as 1MiB or 65536",
        ["", "0", "0MiB", "-1", "1.5MiB", "1GiB", "MiB", "1 M", "9" * 5000, "\u0665"],
    ),
    # A guard must not be off because of a word that is not known.
    (env.boolean, "must be true or false", ["", "2", "y", "enabled", "truefalse", "null"]),
    (
        env.whole(1, 10),
        "must be a whole number from 1 to 10",
        ["0", "11", "-1", "1.0", "ten", "", "1e1", "\u0665", "9" * 5000],
    ),
    # A guard that matches nothing, or everything, is a mistake.
    (env.pair, "must be of the form key=value", ["", "autostop", "=never", "autostop=", " = ", "="]),
    # Values that would fail with the first call, or that show a password.
    (
        env.http_url,
        "must (be a valid URL|be an http or https URL|not have credentials in it)",
        [
            "sink.example",
            "/path",
            "ftp://sink/",
            "http:///path",
            "http://",
            "http://:80/",
            "http://sink:port/",
            "http://sink:99999/",
            "http://[::1",
            "http://si nk/",
            "http://sink/a\nb",
            "http://sink/ü",
            f"http://user:{MARK}@sink/",
            f"http://{MARK}@sink/",
            "smn:urn:smn:eu-de:project:topic",
        ],
    ),
]


@pytest.mark.parametrize(("parse", "values"), PARSED)
def test_a_valid_text_is_parsed(parse: Callable[[str], object], values: Mapping[str, object]) -> None:
    """Units and words in any case."""
    assert {text: parse(text) for text in values} == values


@pytest.mark.parametrize(("parse", "message", "text"), [(*each[:2], text) for each in REFUSED for text in each[2]])
def test_an_invalid_text_is_refused(parse: Callable[[str], object], message: str, text: str) -> None:
    """The message has what must be true, and not the text."""
    with pytest.raises(ValueError, match=f"^{message}$") as raised:
        parse(text)
    assert MARK not in str(raised.value)
