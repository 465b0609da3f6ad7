"""A browser as small as the self-check needs: cookies, redirects, forms. Every host name leads to this
machine.

Standard library only. It sends what a browser would (Host, Origin, cookies of exactly that host), so the
check passes through the same gates as a person.
"""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.cookies import SimpleCookie
from urllib.parse import urlencode, urljoin, urlsplit

TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A response whose body has been read."""

    url: str
    status: int
    location: str
    text: str = field(repr=False)

    def json(self) -> object:
        """The body as JSON."""
        return json.loads(self.text)

    @property
    def brief(self) -> str:
        """The status and the page's title or first words, for messages."""
        title = self.text.partition("<title>")[2].partition("</title>")[0]
        return f"{self.status} {' '.join((title or self.text).split())[:160]}"


@dataclass(slots=True)
class Form:
    """A form of a page with the values it shows."""

    action: str
    method: str
    values: dict[str, str] = field(default_factory=dict)


class _Forms(HTMLParser):
    """Collects the forms of a page, each control with the value a browser would send."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self._inside = False
        self._select = ""
        self._textarea = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See HTMLParser."""
        of = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(of.get("action", ""), of.get("method", "get").lower()))
            self._inside = True
        elif self._inside and "disabled" not in of:
            self._control(tag, of)

    def _control(self, tag: str, of: dict[str, str]) -> None:
        values, name = self.forms[-1].values, of.get("name", "")
        kind = of.get("type", "text").lower()
        if tag == "input" and name and kind not in ("submit", "button", "image", "file"):
            if kind not in ("checkbox", "radio"):
                values[name] = of.get("value", "")
            elif "checked" in of:
                values[name] = of.get("value", "on")
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select and ("selected" in of or self._select not in values):
            values[self._select] = of.get("value", "")
        elif tag == "textarea":
            self._textarea = name
            values[name] = ""

    def handle_data(self, data: str) -> None:
        """See HTMLParser."""
        if self._textarea:
            self.forms[-1].values[self._textarea] += data

    def handle_endtag(self, tag: str) -> None:
        """See HTMLParser."""
        if tag == "form":
            self._inside = False
        elif tag == "select":
            self._select = ""
        elif tag == "textarea":
            self._textarea = ""


def forms_of(answer: Answer) -> list[Form]:
    """The forms of a page, with addresses made absolute."""
    parser = _Forms()
    parser.feed(answer.text)
    for form in parser.forms:
        form.action = urljoin(answer.url, form.action or answer.url)
    return parser.forms


class Browser:
    """One person's browser."""

    def __init__(self, machine: str) -> None:
        self._machine = machine  # the address every host name leads to
        self._cookies: dict[str, dict[str, str]] = {}

    def cookies(self, url: str) -> dict[str, str]:
        """The cookies that belong to this address's host."""
        return self._cookies.setdefault(urlsplit(url).hostname or "", {})

    def cookie_header(self, url: str) -> str:
        """The cookies as they are sent."""
        return "; ".join(f"{name}={value}" for name, value in self.cookies(url).items())

    def dial(self, url: str) -> socket.socket:
        """A socket to where ``url`` leads."""
        return socket.create_connection((self._machine, urlsplit(url).port or 80), TIMEOUT_SECONDS)

    def request(
        self, method: str, url: str, *, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """One request, redirects not followed. Raises OSError or http.client.HTTPException."""
        parts = urlsplit(url)
        sent = {"Host": parts.netloc, "Accept": "text/html, application/json"} | (headers or {})
        if method not in ("GET", "HEAD"):
            sent["Origin"] = f"{parts.scheme}://{parts.netloc}"
        if cookies := self.cookie_header(url):
            sent["Cookie"] = cookies
        link = http.client.HTTPConnection(self._machine, parts.port or 80, timeout=TIMEOUT_SECONDS)
        try:
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            link.request(method, target, body=body, headers=sent)
            response = link.getresponse()
            text = response.read().decode("utf-8", "replace")
        finally:
            link.close()
        for value in response.headers.get_all("Set-Cookie", []):
            self._keep(url, value)
        return Answer(url, response.status, urljoin(url, response.headers.get("Location", "")), text)

    def _keep(self, url: str, value: str) -> None:
        for name, morsel in SimpleCookie(value).items():
            if morsel["max-age"] == "0":
                self.cookies(url).pop(name, None)
            else:
                self.cookies(url)[name] = morsel.value

    def get(self, url: str) -> Answer:
        """A page, redirects followed."""
        answer = self.request("GET", url)
        for _ in range(5):
            if answer.status not in (301, 302, 303, 307, 308):
                break
            answer = self.request("GET", answer.location)
        return answer

    def submit(self, form: Form, **values: str) -> Answer:
        """Send a form with some values changed; the redirect that follows a success is not followed."""
        body = urlencode(form.values | values).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.request("POST", form.action, body=body, headers=headers)
