"""The seeded users of the simulated cloud, and their project."""

import secrets
import uuid
from collections.abc import Iterable

from handler.simulator.identity.access_keys import AccessKey, AccessKeys
from handler.simulator.identity.model import ApplicationCredential, Domain, Identity, Project, User

_EVERY_ROLE = ("reader", "member", "manager", "admin")


class Accounts:
    """A domain with three users and three projects.

    `operator` is a member of the project, `watcher` may only read in it, and `admin` may do everything.
    Only an administrator can read the project `other-project`.

    Args:
        identity: that they are added to.
        project_name: the project.
        domain_name: the domain of all of them.
        password: of `operator`; None for a random one, as the others have.
    """

    def __init__(self, identity: Identity, project_name: str, domain_name: str, password: str | None = None) -> None:
        self._identity = identity
        self.keys = AccessKeys(identity.clock)
        domain = Domain(uuid.uuid4().hex, domain_name)
        names = (project_name, "other-project", "admin")
        self.project, self.other, own = (Project(uuid.uuid4().hex, name, domain) for name in names)
        identity.domains.append(domain)
        identity.projects += [self.project, self.other, own]
        here = self.project.id
        self._users = {
            "operator": identity.add_user("operator", domain, self.project, {here: ("reader", "member")}, password),
            "watcher": identity.add_user("watcher", domain, self.project, {here: ("reader",)}),
            "admin": identity.add_user("admin", domain, own, {here: _EVERY_ROLE, own.id: _EVERY_ROLE}),
        }

    def user(self, name: str) -> User:
        """Return one of the users.

        Raises:
            KeyError: there is no such user.
        """
        return self._users[name]

    def environ(self, name: str) -> dict[str, str]:
        """Return the OS_* variables of a user's login, scoped to the project; without URL and region."""
        user = self.user(name)
        return {
            "OS_USERNAME": user.name,
            "OS_PASSWORD": user.password,
            "OS_USER_DOMAIN_NAME": user.domain.name,
            "OS_PROJECT_NAME": self.project.name,
            "OS_PROJECT_DOMAIN_NAME": self.project.domain.name,
        }

    def token(self, name: str, scoped: bool) -> str:
        """Return a new token of a user, for the project or for none."""
        return self._identity.issue(self.user(name), self.project if scoped else None, ("password",)).id

    def add_access_key(self, user: str, lifetime: float | None) -> AccessKey:
        """Add a key that signs requests of a user; a temporary one if it has a lifetime, in seconds."""
        return self.keys.add(self.user(user), lifetime)

    def add_application_credential(
        self,
        name: str,
        user: str,
        roles: Iterable[str] | None,
        access_rules: Iterable[tuple[str, str]] | None = None,
    ) -> ApplicationCredential:
        """Add a login for a program on behalf of a user, with the user's own roles unless some are given.

        Args:
            user: the user.
            name: of the login.
            roles: in place of the user's.
            access_rules: as of `ApplicationCredential`.
        """
        owner = self.user(user)
        held = tuple(roles) if roles is not None else owner.roles[self.project.id]
        secret = secrets.token_urlsafe(32)
        rules = None if access_rules is None else tuple(access_rules)
        credential = ApplicationCredential(uuid.uuid4().hex, name, secret, owner, self.project, held, rules)
        self._identity.application_credentials.append(credential)
        return credential
