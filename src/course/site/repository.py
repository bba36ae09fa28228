"""Launch and source buttons, from the repository that the book is built in.

The address is that of the `origin` remote, or of the environment variable `BOOK_REPOSITORY_URL`. Without a public
one a page has only its download button.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

__all__ = ["pages_url", "public_url", "remote", "setup"]

BINDER = "https://mybinder.org"
COLAB = "https://colab.research.google.com"

_SSH = re.compile(r"(?:ssh://)?(?:[^@/]+@)(?P<host>[^:/]+)(?::\d+)?[:/](?P<path>.+)")
_HTTPS = re.compile(r"https?://(?:[^@/]*@)?(?P<host>[^/]+)/(?P<path>.+)")
_HOSTS = re.compile(r"github\.com|gitlab\.com|gitlab\.[a-z0-9.-]+\.[a-z]+")


def public_url(remote: str) -> str | None:
    """The address a reader can open, without credentials; `None` if it is on no public host.

    >>> public_url("git@github.com:owner/book.git")
    'https://github.com/owner/book'
    >>> public_url("https://name:secret@gitlab.com/owner/book")
    'https://gitlab.com/owner/book'
    >>> public_url("/srv/git/book") is None
    True
    """
    match = _HTTPS.fullmatch(remote.strip()) or _SSH.fullmatch(remote.strip())
    if match is None or not _HOSTS.fullmatch(match["host"].lower()):
        return None
    path = match["path"].rstrip("/").removesuffix(".git").strip("/")
    return f"https://{match['host'].lower()}/{path}" if path.count("/") else None


def pages_url(repository: str) -> str | None:
    """Where GitHub or GitLab publishes the pages of a repository.

    >>> pages_url("https://github.com/Owner/book")
    'https://owner.github.io/book/'
    """
    host, owner, *rest = repository.removeprefix("https://").split("/")
    pages = {"github.com": "github.io", "gitlab.com": "gitlab.io"}.get(host)
    return f"https://{owner.lower()}.{pages}/{'/'.join(rest)}/" if pages else None


def remote(root: Path) -> str:
    """What `BOOK_REPOSITORY_URL` says, else git of the remote `origin`; empty if neither does."""
    given = os.environ.get("BOOK_REPOSITORY_URL")
    git = shutil.which("git")
    if given or git is None:
        return given or ""
    asked = [git, "-C", str(root), "remote", "get-url", "origin"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603


def setup(app: Sphinx) -> None:
    """Set the theme's buttons, and what only a published book needs."""
    app.connect("config-inited", _buttons)
    repository = public_url(remote(Path(app.srcdir)))
    pages = pages_url(repository) if repository else None
    if pages:
        for extension in ("sphinx_sitemap", "sphinxext.opengraph", "notfound.extension"):
            app.setup_extension(extension)
        app.connect("config-inited", lambda _, config: _published(config, pages))


def _published(config: Config, pages: str) -> None:
    config.html_baseurl = config.ogp_site_url = pages
    config.ogp_social_cards = {"enable": False}
    config.notfound_urls_prefix = "/" + pages.split("/", 3)[3]
    config.sitemap_url_scheme = "{link}"


def _buttons(app: Sphinx, config: Config) -> None:
    options = config.html_theme_options
    url = public_url(remote(Path(app.srcdir)))
    shown = url is not None
    options["repository_url"] = url or ""
    options["use_repository_button"] = options["use_issues_button"] = shown
    options["use_source_button"] = shown
    options["launch_buttons"] = {}
    if url is not None:
        options["repository_branch"] = "main"
        options["launch_buttons"] = {"notebook_interface": "jupyterlab", "binderhub_url": BINDER}
        if url.startswith("https://github.com/"):
            options["launch_buttons"]["colab_url"] = COLAB
