"""A page of HTML as a test reads it."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Tags with their attributes, and all text of a page with the tags and classes that it stands in.

    Attributes:
        tags: (tag, attributes) of each, in order.
        texts: (path, text) of each piece of text: its tags with classes and ids, such as "li.bar".
    """

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self._path = [], [], []
        self.feed(text)
        assert not self._path, "a tag is not closed"

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag not in VOID and "/" not in self.get_starttag_text()[-2:]:
            names = [f".{name}" for name in (attributes.get("class") or "").split()]
            names += [f"#{attributes['id']}"] if attributes.get("id") else []
            self._path.append(tag + "".join(names))

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        assert self._path and self._path[-1].split(".")[0].split("#")[0] == tag, f"</{tag}> closes {self._path[-1:]}"
        self._path.pop()

    def handle_data(self, text):
        if text.strip():
            self.texts.append((" ".join(self._path), text.strip()))

    def find(self, *parts):
        """The texts whose path has all parts."""
        return [text for path, text in self.texts if all(part in path.split() for part in parts)]
