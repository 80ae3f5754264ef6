"""A PACS over DICOMweb: search, fetch and store by dicomweb-client, with sentences for what goes wrong."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

import pydicom
import requests
from dicomweb_client import DICOMwebClient
from monailabel.config import settings as monailabel_settings
from pydicom.datadict import tag_for_keyword
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ReadTimeoutError
from urllib3.util import Retry

from segmed.dicom.files import SeriesFacts, whole
from segmed.server.config.dicomweb_settings import DicomwebSettings, check_url
from segmed.server.http.errors import BadRequest, PacsAway

logger = logging.getLogger(__name__)
# their warnings quote addresses with search keys, and headers
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
logging.getLogger("dicomweb_client").setLevel(logging.ERROR)

DOWN = 424
_PASSING = (429, 500, 502, 503, 504)  # answers of a PACS, or of a proxy in front of it, that is overloaded
_CONNECT, _SEARCH, _STORE, _READ = 5.0, 10.0, 20.0, 60.0  # s without a byte: of searches, storing, and data
_SEARCHES = ("/studies", "/series", "/instances")  # ends of their paths
# s until a PACS that did not answer is asked again: doubled each time, up to a minute
_ASK_AGAIN, _LONGEST = 2.0, 60.0
_FIELDS = (
    "StudyDate",
    "Modality",
    "SeriesDescription",
    "SeriesNumber",
    "NumberOfSeriesRelatedInstances",
    "PatientID",
    "PatientName",
)
_AS_STORED = (("application/dicom", "*"),)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_UID = re.compile(r"^[0-9]+(\.[0-9]+)*$")


class Reference(NamedTuple):
    """What a segmentation tells.

    Attributes:
        about: series of images.
        made: when, as text that sorts.
    """

    about: tuple[str, ...]
    made: str


class _SentElsewhere(requests.RequestException):
    """The PACS names another server, which was not asked for."""


class _Again(Retry):
    """A second try where a connection went stale; none where the PACS is silent, which would take as long
    again."""

    def increment(self, method: Any = None, url: Any = None, response: Any = None,
                  error: Any = None, _pool: Any = None, _stacktrace: Any = None) -> _Again:  # fmt: skip
        if isinstance(error, ReadTimeoutError):
            raise error
        return super().increment(method, url, response, error, _pool, _stacktrace)


class _Adapter(HTTPAdapter):
    """Gives up in time, tries reads again on a stale connection, checks certificates, and stays with one
    server."""

    def __init__(self, ca: Path | None) -> None:
        again = _Again(total=1, connect=0, read=1, status=0, other=0, allowed_methods={"GET"}, redirect=None)
        super().__init__(max_retries=again)
        self._ca = str(ca) if ca else None

    def send(self, request: Any, stream: Any = False, timeout: Any = None, verify: Any = True,
             cert: Any = None, proxies: Any = None) -> requests.Response:  # fmt: skip
        asked = urlsplit(request.url)
        wait = _STORE if request.method == "POST" else _SEARCH if asked.path.endswith(_SEARCHES) else _READ
        answer = super().send(request, stream, (_CONNECT, wait), self._ca or verify or True, cert, proxies)
        if answer.is_redirect:
            target = urlsplit(urljoin(request.url, answer.headers["location"]))
            if (target.scheme, target.netloc) != (asked.scheme, asked.netloc):
                raise _SentElsewhere
        return answer


class Pacs:
    """One PACS. Nothing is asked before it is needed.

    Args:
        url: of DICOMweb.
        settings: user and certificates.

    Attributes:
        failure: what went wrong when it was asked last; "" if nothing did.
    """

    def __init__(self, url: str, settings: DicomwebSettings) -> None:
        self.url = check_url(url)
        session = requests.Session()
        session.auth = settings.user
        session.cert = str(settings.certificate) if settings.certificate else None
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Adapter(settings.ca))
        if settings.user and self.url.startswith("http://") and urlsplit(self.url).hostname not in _LOOPBACK:
            logger.warning(
                "The password of the PACS goes over the network unencrypted. Give --studies https://…"
            )
        self._client = DICOMwebClient(
            self.url,
            session,
            monailabel_settings.MONAI_LABEL_QIDO_PREFIX or None,
            monailabel_settings.MONAI_LABEL_WADO_PREFIX or None,
            monailabel_settings.MONAI_LABEL_STOW_PREFIX or None,
            permissive_uid=True,
        )
        self._client.set_http_retry_params(retry=False)
        self.failure = ""
        self._ask_again = float("-inf")
        self._failures = 0
        self._asking = threading.Lock()

    def ask_again(self) -> None:
        """Ask at once, even if it did not answer a moment ago: a user waits, and it may be back."""
        self._ask_again = float("-inf")

    def find_series(self, filters: Mapping[str, str]) -> list[SeriesFacts]:
        """Series that match; those without usable UIDs are left out.

        Raises:
            BadRequest: (424) the PACS does not answer as it should.
        """
        found: dict[str, SeriesFacts] = {}
        seen = 0
        with self._explained("There is no DICOMweb service at the address of --studies. Check it."):
            while True:  # a PACS may answer in parts, and may ignore the offset
                page = self._client.search_for_series(
                    search_filters=dict(filters), fields=_FIELDS, offset=seen or None
                )
                fresh = {
                    facts.series: facts for facts in map(_facts, page) if facts and facts.series not in found
                }
                if not fresh:
                    return list(found.values())
                found |= fresh
                seen += len(page)

    def reference(self, study: str, series: str) -> Reference:
        """What a segmentation is about. Raises BadRequest (424)."""
        with self._explained("The segmentation is no longer in the PACS."):
            headers = self._client.retrieve_series_metadata(study, series)
        found = [
            str(_value(item, "SeriesInstanceUID"))
            for header in headers
            for item in header.get(_tag("ReferencedSeriesSequence"), {}).get("Value", ())
        ]
        when = max((f"{_value(h, 'ContentDate')}{_value(h, 'ContentTime')}" for h in headers), default="")
        return Reference(tuple(dict.fromkeys(filter(None, found))), when)

    def download(self, facts: SeriesFacts, folder: Path) -> None:
        """Write all instances of a series, as they are stored, into an empty folder.

        Raises:
            BadRequest: (424) the PACS does not answer as it should, or sends less than it has.
            OSError: the folder cannot be written.
        """
        instances: set[tuple[str, ...]] = set()
        with self._explained("The series is no longer in the PACS."), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote headers
            for data in self._client.iter_series(facts.study, facts.series, media_types=_AS_STORED):
                # by the UID alone, slices that share one would be lost
                one = tuple(
                    str(data.get(n)) for n in ("SOPInstanceUID", "InstanceNumber", "ImagePositionPatient")
                )
                if one not in instances:
                    data.save_as(folder / f"{len(instances):06d}.dcm")
                    instances.add(one)
        if not instances or len(instances) < facts.slices:
            self._fail(f"The PACS sent {len(instances)} of {facts.slices} files of the series. Try again.")

    def store(self, data: pydicom.Dataset) -> None:
        """Store an instance. Raises BadRequest (424) if it was not taken."""
        with self._explained("The PACS does not take new instances at the address of --studies (STOW-RS)."):
            answer = self._client.store_instances([data])
        if answer.get("FailedSOPSequence"):
            reason = whole(answer.FailedSOPSequence[0].get("FailureReason"))
            self._fail(f"The PACS refused to store the segmentation (reason {reason:#06x}). Ask who runs it.")

    @contextlib.contextmanager
    def _explained(self, not_found: str) -> Iterator[None]:
        if time.monotonic() < self._ask_again:  # else each request would wait for it
            raise PacsAway(self.failure, DOWN)
        try:
            yield
        except (requests.exceptions.SSLError, requests.ConnectionError, requests.Timeout) as error:
            # one that is silent keeps whoever asks for seconds, one that is away does not
            self._failures = self._failures + 1 if _silent(error) else 1
            self._ask_again = time.monotonic() + min(_ASK_AGAIN * 2 ** (self._failures - 1), _LONGEST)
            self._fail(_unreached(error), error, PacsAway)
        except _SentElsewhere as error:
            self._fail(
                "The PACS sends its clients to another server. Give its final DICOMweb address as --studies.",
                error,
            )
        except requests.HTTPError as error:
            status = 0 if error.response is None else error.response.status_code
            kind = PacsAway if status in _PASSING else BadRequest
            self._fail(not_found if status == 404 else _refused(status), error, kind)
        except (requests.RequestException, ValueError, AttributeError, KeyError, EOFError) as error:
            self._fail(
                "What answers at the address of --studies is no DICOMweb service, or it broke off.", error
            )
        else:
            self.failure, self._failures = "", 0

    def _fail(self, text: str, error: Exception | None = None, kind: type[BadRequest] = BadRequest) -> None:
        self.failure = text
        raise kind(text, DOWN) from error


def made(data: pydicom.Dataset) -> str:
    """When a segmentation was made, as `Reference` has it."""
    return f"{data.get('ContentDate', '')}{data.get('ContentTime', '')}"


def _silent(error: Exception) -> bool:
    """Whether a PACS took the connection, or seemed to, and did not answer; a second try hides that in its
    error."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(error, requests.Timeout) or isinstance(reason, ReadTimeoutError)


def _unreached(error: Exception) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return (
            "The PACS cannot be trusted: its certificate is not valid or not known here. Give the file of "
            "its authority by --conf dicomweb_ca FILE."
        )
    if _silent(error):
        return "The PACS does not answer in time. It is asked again in a while; check that it runs."
    return (
        "The PACS cannot be reached. It is asked again at the next request; check that it runs, and its "
        "address."
    )


def _refused(status: int) -> str:
    if status in (401, 403):
        return (
            "The PACS refuses the name or the password. Set MONAI_LABEL_DICOMWEB_USERNAME and "
            "MONAI_LABEL_DICOMWEB_PASSWORD, and start the server again."
        )
    return f"The PACS answers with an error (HTTP {status}). Its own log tells more."


def _tag(keyword: str) -> str:
    return f"{tag_for_keyword(keyword):08X}"


def _value(item: Mapping[str, Any], keyword: str) -> Any:
    return next(iter(item.get(_tag(keyword), {}).get("Value") or ()), "")


def _person(value: Any) -> str:
    """A name out of its representations; the ideographic one where there is no alphabetic one."""
    if not isinstance(value, Mapping):
        return str(value)
    return next((str(v) for form in ("Alphabetic", "Ideographic", "Phonetic") if (v := value.get(form))), "")


def _facts(item: Mapping[str, Any]) -> SeriesFacts | None:
    series, study = (str(_value(item, name)) for name in ("SeriesInstanceUID", "StudyInstanceUID"))
    if not all(_UID.match(uid) and len(uid) <= 64 for uid in (series, study)):  # they become names of folders
        return None
    return SeriesFacts(
        series,
        study,
        str(_value(item, "Modality")),
        str(_value(item, "SeriesDescription")),
        str(_value(item, "StudyDate")),
        str(_value(item, "PatientID")),
        whole(_value(item, "SeriesNumber")),
        whole(_value(item, "NumberOfSeriesRelatedInstances")),
        _person(_value(item, "PatientName")),
    )
