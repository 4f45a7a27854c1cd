"""For clients on requests that cannot be given an address: another way for what they send."""

from typing import Any
from urllib.parse import urlsplit

import requests
import voyageai
from requests.adapters import HTTPAdapter

_VOYAGE = requests.Session()
voyageai.requestssession = _VOYAGE


class Rerouted(HTTPAdapter):
    """Sends to a sidecar what is meant for another host, the path as it is.

    A transport adapter is requests' own way to do that: the client stays as it was published.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        request.url = self._url + urlsplit(request.url or "").path
        return super().send(request, *args, **kwargs)


def reroute_voyage(url: str) -> None:
    """Reroute the SDK for those who use it and offer no `base_url`; it may be given a session."""
    _VOYAGE.mount("https://api.voyageai.com/", Rerouted(url))
