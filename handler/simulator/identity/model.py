"""The users of the simulated cloud, and the tokens that were issued."""

import re
import secrets
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Domain:
    """An account, in which names of users and projects are unique."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Project:
    """An owner of servers and scope of tokens; `id` is 32 hexadecimal digits."""

    id: str
    name: str
    domain: Domain


@dataclass(frozen=True, slots=True)
class User:
    """A user. `roles` maps the id of a project to the names of the user's roles there."""

    id: str
    name: str
    password: str = field(repr=False)
    domain: Domain
    default_project: Project
    roles: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class ApplicationCredential:
    """A user's login for a program, bound to one project and to roles of it.

    `access_rules` are methods and paths, the only ones that it may be used for; None for all. In a path `*` or a name
    in braces stands for one part, `**` for any rest.
    """

    id: str
    name: str
    secret: str = field(repr=False)
    user: User
    project: Project
    roles: tuple[str, ...]
    access_rules: tuple[tuple[str, str], ...] | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """An issued token; times are seconds since the epoch. Without a project it is valid for Keystone only."""

    id: str = field(repr=False)
    user: User
    project: Project | None
    roles: tuple[str, ...]
    methods: tuple[str, ...]
    issued_at: float
    expires_at: float
    audit_ids: tuple[str, ...]
    application_credential: ApplicationCredential | None = None

    @property
    def admin(self) -> bool:
        """Whether Nova's policy treats the holder as an administrator."""
        return "admin" in self.roles

    def admits(self, method: str, path: str) -> bool:
        """Whether the access rules of the application credential that it came from, if any, include a call."""
        credential = self.application_credential
        if credential is None or credential.access_rules is None:
            return True
        return any(
            method == allowed and _pattern(pattern).fullmatch(path) for allowed, pattern in credential.access_rules
        )

    @property
    def may_write(self) -> bool:
        """Whether Nova's policy permits the holder to stop and start servers of the project."""
        return self.admin or "member" in self.roles


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*|\{[^}]*\})", path)
    return re.compile("".join(".*" if p == "**" else "[^/]+" if p[:1] in ("*", "{") else re.escape(p) for p in parts))


class Denied(Exception):
    """The login is refused; Keystone does not give the reason."""


class Identity:
    """A domain with three users and three projects, and the tokens that were issued.

    `operator` is a member of the project, `watcher` may only read in it, and `admin` may do everything. Only an
    administrator can read the project `other-project`.

    Args:
        clock: seconds since the epoch.
        token_ttl: seconds for which a new token is valid.
        project_name: of the project.
        domain_name: of the domain.
        long_tokens: whether tokens have some kilobytes, as on Open Telekom Cloud.
        password: of `operator`; None for a random one, as the others have.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        token_ttl: float,
        *,
        project_name: str,
        domain_name: str,
        long_tokens: bool,
        password: str | None,
    ) -> None:
        self.clock = clock
        self.domain = Domain(uuid.uuid4().hex, domain_name)
        names = (project_name, "other-project", "admin")
        self.projects = tuple(Project(uuid.uuid4().hex, name, self.domain) for name in names)
        self.project, self.other, own = self.projects
        self.role_ids = {name: uuid.uuid4().hex for name in ("reader", "member", "manager", "admin")}
        every_role = tuple(self.role_ids)
        self.users = {
            "operator": self._user("operator", self.project, {self.project.id: ("reader", "member")}, password),
            "watcher": self._user("watcher", self.project, {self.project.id: ("reader",)}),
            "admin": self._user("admin", own, {self.project.id: every_role, own.id: every_role}),
        }
        self.application_credentials: list[ApplicationCredential] = []
        self._token_ttl = token_ttl
        self._long_tokens = long_tokens
        self._tokens: dict[str, Token] = {}
        self._revoked: set[str] = set()
        self._lock = threading.Lock()

    def _user(
        self, name: str, default: Project, roles: Mapping[str, tuple[str, ...]], password: str | None = None
    ) -> User:
        return User(uuid.uuid4().hex, name, password or secrets.token_urlsafe(16), self.domain, default, roles)

    def issue(
        self,
        user: User,
        project: Project | None,
        methods: tuple[str, ...],
        *,
        parent: Token | None = None,
        credential: ApplicationCredential | None = None,
    ) -> Token:
        """Issue a token of a user for a project, or for none.

        With `parent`, the token that was used to get this one, it expires at the same time; with `credential`, the
        application credential that was used, it has the roles of that.

        Raises:
            Denied: the user has no role on the project.
        """
        roles = credential.roles if credential else user.roles.get(project.id, ()) if project else ()
        if project and not roles:
            raise Denied
        now = self.clock()
        token = Token(
            # The form and length of a Fernet token, or of a PKI token.
            id="MIIV" + secrets.token_urlsafe(3072) if self._long_tokens else "gAAAAAB" + secrets.token_urlsafe(132),
            user=user,
            project=project,
            roles=roles,
            methods=methods,
            issued_at=now,
            expires_at=parent.expires_at if parent else now + self._token_ttl,
            audit_ids=(secrets.token_urlsafe(16), *(parent.audit_ids[:1] if parent else ())),
            application_credential=credential,
        )
        with self._lock:
            self._tokens[token.id] = token
        return token

    def check(self, token_id: object) -> Token | None:
        """Return the token if it was issued, is not expired and not revoked."""
        with self._lock:
            token = self._tokens.get(token_id) if isinstance(token_id, str) else None
        return token if token and self.clock() < token.expires_at else None

    def revoke(self, token_id: str) -> None:
        """Revoke the token; an unknown one is ignored."""
        with self._lock:
            if self._tokens.pop(token_id, None):
                self._revoked.add(token_id)

    def revoke_all(self) -> None:
        """Revoke every token issued so far."""
        with self._lock:
            self._revoked.update(self._tokens)
            self._tokens.clear()

    def was_revoked(self, token_id: str | None) -> bool:
        """Whether the token was issued and then revoked."""
        with self._lock:
            return token_id in self._revoked

    def drop(self, token: Token) -> None:
        """Remove a token that was never sent."""
        with self._lock:
            self._tokens.pop(token.id, None)
