"""Static files from the same process, before Django sees the request.

Collected files (`collectstatic`) go out under hashed names, compressed and cached for good. Without a collection they
are served straight from the apps, so that a fresh clone needs no extra step.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from django.contrib.staticfiles.finders import get_finders
from servestatic import ServeStaticASGI
from servestatic.storage import CompressedManifestStaticFilesStorage

from llmchat.lib.asgi import Application


class HashedWhenCollected(CompressedManifestStaticFilesStorage):  # type: ignore[misc]
    """Names with a hash once the files are collected, plain names before."""

    def stored_name(self, name: str) -> str:
        return cast(str, super().stored_name(name)) if self.hashed_files else name


def with_static_files(application: Application, *, url: str, root: Path, debug: bool) -> Application:
    """`application`, with the files below `url` served before it. `root`: where collected files are, if they are."""
    if not debug and (root / "staticfiles.json").is_file():
        return cast(Application, ServeStaticASGI(application, root=root, prefix=url))
    # Looking on each request costs a thread hop: worth it only while files are being edited.
    server = ServeStaticASGI(application, autorefresh=debug)
    # As Django's finders do: the first place that has a file wins.
    for place in reversed(_places()):
        server.add_files(place, prefix=url)
    return cast(Application, server)


def _places() -> list[str]:
    return list(
        dict.fromkeys(
            storage.location for finder in get_finders() for storage in getattr(finder, "storages", {}).values()
        )
    )
