"""Who looks at the record in a benchmark: a browser that is logged in to the admin, and a caller of the API with a key.

One connection each, kept open as browsers keep theirs; every answer is read to its end and timed on the clock.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

if TYPE_CHECKING:
    from accounts.models import Organization

PATIENCE = 60.0
_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="(\w+)"')
_REDIRECTS = 3


@dataclass(frozen=True, slots=True)
class Seen:
    """An answer. `seconds`: from the question to the last byte; `path`: where redirects led."""

    status: int
    body: bytes
    seconds: float
    path: str


@dataclass(slots=True)
class Visitor:
    """Asks one server, with cookies as a browser keeps them."""

    port: int
    headers: dict[str, str] = field(default_factory=dict)
    _cookies: dict[str, str] = field(default_factory=dict)
    _connection: HTTPConnection | None = None

    def get(self, path: str) -> Seen:
        """Follows redirects within the server. Raises OSError or HTTPException when it is not answered."""
        began = time.perf_counter()
        for _ in range(_REDIRECTS):
            status, location, body = self._ask("GET", path)
            if location is None:
                break
            path = location
        return Seen(status, body, time.perf_counter() - began, path)

    def log_in(self, name: str, password: str) -> None:
        page = "/admin/login/"
        found = _TOKEN.search(self.get(page).body.decode())
        form = {"username": name, "password": password, "next": "/admin/", "csrfmiddlewaretoken": found and found[1]}
        status, location, _ = self._ask(
            "POST", page, urlencode(form), {"Content-Type": "application/x-www-form-urlencoded"}
        )
        if location is None:
            raise RuntimeError(f"{name} cannot log in: status {status}")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _ask(
        self, method: str, path: str, body: str | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, str | None, bytes]:
        """Status, where it leads to, and the body. A connection that the server has given up is opened anew."""
        said = {**self.headers, **(headers or {})}
        if self._cookies:
            said["Cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        for is_last in (False, True):
            if self._connection is None:
                self._connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
            try:
                self._connection.request(method, path, body, said)
                response = self._connection.getresponse()
                content = response.read()
            except (ConnectionError, HTTPException) as problem:
                self._connection.close()
                self._connection = None
                if is_last or isinstance(problem, TimeoutError):
                    raise
                continue
            break
        for line in response.headers.get_all("Set-Cookie") or ():
            name, _, value = line.partition(";")[0].partition("=")
            self._cookies[name] = value
        location = response.headers.get("Location") if 300 <= response.status < 400 else None
        if location is not None:
            parts = urlsplit(location)
            location = f"{parts.path}?{parts.query}" if parts.query else parts.path
        return response.status, location, content


@dataclass(frozen=True, slots=True)
class Visitors:
    """The operator, and the owner of `organization` in the admin and, with a key, as a caller of the API."""

    operator: Visitor
    owner: Visitor
    caller: Visitor
    organization: Organization
    key: str


@contextmanager
def visiting(port: int, organization: Organization) -> Iterator[Visitors]:
    """People and a key, for as long as this lasts. Needs a Django that stands on the server's database."""
    from accounts.models import Membership, User
    from accounts.services import create_api_key

    suffix, password = secrets.token_hex(4), secrets.token_urlsafe(24)
    people: list[Any] = []
    key = None
    try:
        people.append(User.objects.create_superuser(username=f"bench-operator-{suffix}", password=password))
        people.append(User.objects.create_user(username=f"bench-owner-{suffix}", password=password, is_staff=True))
        Membership.objects.create(user=people[1], organization=organization, role=Membership.Role.OWNER)
        key, raw = create_api_key(organization, name=f"bench-{suffix}")
        operator, owner = Visitor(port), Visitor(port)
        caller = Visitor(port, headers={"Authorization": f"Bearer {raw}"})
        for visitor, person in zip((operator, owner), people, strict=True):
            visitor.log_in(person.username, password)
        yield Visitors(operator, owner, caller, organization, raw)
        for visitor in (operator, owner, caller):
            visitor.close()
    finally:
        for person in people:
            person.delete()
        if key is not None:
            key.delete()
