"""The parts of the book's extension that need no browser."""

import json
import re

import pytest

from course.site.assets import palette_css, palette_js
from course.site.outputs import figure_html
from course.site.repository import pages_url, public_url
from course.theme import COLOURS


@pytest.mark.parametrize(
    ("remote", "url"),
    [
        ("git@github.com:owner/book.git", "https://github.com/owner/book"),
        ("ssh://git@github.com:22/owner/book.git", "https://github.com/owner/book"),
        ("https://github.com/owner/book.git", "https://github.com/owner/book"),
        ("https://name:secret@github.com/owner/book", "https://github.com/owner/book"),
        ("https://GitHub.com/owner/book/", "https://github.com/owner/book"),
        ("git@gitlab.com:group/sub/book.git", "https://gitlab.com/group/sub/book"),
        ("https://gitlab.example.org/owner/book", "https://gitlab.example.org/owner/book"),
        ("/srv/git/book.git", None),
        ("file:///srv/git/book.git", None),
        ("http://127.0.0.1:8080/owner/book", None),
        ("https://github.com.attacker.net/owner/book", None),
        ("", None),
    ],
)
def test_only_a_public_remote_gives_an_address(remote: str, url: str | None) -> None:
    """Credentials are stripped; what a reader could not open is no address."""
    assert public_url(remote) == url


def test_pages_are_where_the_host_publishes_them() -> None:
    """A host of one's own has no address that could be known."""
    assert pages_url("https://gitlab.com/owner/book") == "https://owner.gitlab.io/book/"
    assert pages_url("https://gitlab.example.org/owner/book") is None


def test_page_and_figures_have_one_palette() -> None:
    """The style sheet and the script carry every colour of the table."""
    css = palette_css()
    swaps = json.loads(palette_js().removeprefix("window.coursePalette = "))
    for name, colour in COLOURS.items():
        assert list(re.findall(rf"--course-{name}:([^;]+);", css)) == [*colour]
        assert swaps[colour.light] == colour.dark


def test_a_figures_text_cannot_break_out_of_its_data() -> None:
    """Markup in a title stays text, in the caption and in the JSON."""
    title = "</script><b>"
    html = figure_html(
        {"data": [], "layout": {"height": 380, "meta": {"title": title, "alt": 'a "b"'}}}
    )
    assert html.count("</script>") == 1
    assert "<b>" not in html.replace("<\\/script><b>", "")
