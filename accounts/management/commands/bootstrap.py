"""`manage.py bootstrap`: somebody to ask with and somebody to log in, on a machine that has neither.

Each of the three parts (organization, key on file, administrator) is made only if it is missing, so running it again is
harmless, and a lost key file mends itself.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand
from django.db import transaction

from accounts.management.naming import plan_named
from accounts.models import APIKey, Organization, User
from accounts.services import create_api_key, create_organization, digest_of, revoke_api_key

ORGANIZATION = "demo"
PLAN = "premium"
ADMINISTRATOR = "admin"


class Command(BaseCommand):
    help = "Creates a demo organization with an API key, and an admin user, if they do not exist yet."

    def handle(self, *args: Any, **options: Any) -> None:
        file = Path(settings.DATA_DIR) / "demo.key"
        with transaction.atomic():
            organization = Organization.objects.filter(name=ORGANIZATION).first()
            if organization is None:
                organization = create_organization(ORGANIZATION, plan=plan_named(PLAN))
            raw = None if _works(file, organization) else _issue(file, organization)
            password = _create_administrator()
        if raw is None and password is None:
            self.stdout.write(f"The demo organization and the admin user exist already; the key is in {_near(file)}.")
            return
        site = f"http://{settings.HOST}:{settings.PORT}"
        lines = ["", "This is shown once:"]
        if password is not None:
            lines += [f"  admin     {site}/admin/   user {ADMINISTRATOR}   password {password}"]
        if raw is not None:
            lines += [f"  API key   {raw}   (also in {_near(file)})"]
        lines += [
            "",
            "Ask something:",
            f'  curl {site}/v1/chat -H "Authorization: Bearer $(cat {_near(file)})" \\',
            """    -H 'Content-Type: application/json' \\""",
            """    -d '{"userId": "12345", "prompt": "What is the capital of France?"}'""",
            "",
        ]
        self.stdout.write("\n".join(lines))


def _works(file: Path, organization: Organization) -> bool:
    try:
        raw = file.read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return False
    return APIKey.objects.usable().filter(organization=organization, digest=digest_of(raw)).exists()


def _issue(file: Path, organization: Organization) -> str:
    """A key whose raw form is in `file`; earlier ones that nobody can know any more are revoked."""
    for lost in APIKey.objects.filter(organization=organization, name=ORGANIZATION, revoked_at=None):
        revoke_api_key(lost)
    _, raw = create_api_key(organization, name=ORGANIZATION)
    # Never readable by others, not even for a moment, and never half a key.
    fresh = file.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="ascii") as writing:
        writing.write(f"{raw}\n")
    fresh.replace(file)
    return raw


def _create_administrator() -> str | None:
    """The password of a new administrator; None if anybody administers this installation already."""
    if User.objects.filter(is_superuser=True, is_active=True).exists():
        return None
    password = secrets.token_urlsafe(12)
    user, _ = User.objects.get_or_create(username=ADMINISTRATOR)
    user.is_staff = user.is_superuser = user.is_active = True
    user.set_password(password)
    user.save()
    return password


def _near(file: Path) -> str:
    """The file as one would type it here."""
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)
