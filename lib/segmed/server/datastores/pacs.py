"""A PACS as studies: series are fetched when they are used, labels stored as DICOM SEG."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydicom.dataset import Dataset

from segmed.dicom.codes import SegmentCodes
from segmed.dicom.files import SeriesFacts
from segmed.imaging.durable import appear_whole
from segmed.server.config.dicomweb_settings import DicomwebSettings
from segmed.server.datastores.dicom_studies import DicomStudies
from segmed.server.datastores.dicomweb import Pacs, Reference, made
from segmed.server.datastores.fixed_images import check_image
from segmed.server.datastores.label_files import LabelFiles
from segmed.server.datastores.series_cache import SeriesCache
from segmed.server.datastores.state import state_json
from segmed.server.http.errors import BadRequest
from segmed.server.http.requests import check_uid

logger = logging.getLogger(__name__)
_REFERENCES = "segmentations.json"


class PacsStudies(DicomStudies):
    """Studies of one PACS. Nothing is asked of it before something is wanted.

    Args:
        url: of DICOMweb.
        settings: what is listed, and how it is reached.
        structures: values by name where a label map does not tell.
        codes: of segments, by name.

    Raises:
        ValueError: the address holds a password, or is none.
        OSError: the folder for labels cannot be made.
    """

    kind = "pacs"

    def __init__(
        self,
        url: str,
        settings: DicomwebSettings,
        structures: Mapping[str, int] | None = None,
        codes: Mapping[str, SegmentCodes] | None = None,
    ) -> None:
        self.pacs = Pacs(url, settings)
        digest = hashlib.sha256(self.pacs.url.encode()).hexdigest()[:12]
        self.root = settings.cache / f"{urlsplit(self.pacs.url).hostname}-{digest}"
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        super().__init__(LabelFiles(self.root), structures, codes)
        self._settings = settings
        self.show_patient = settings.show_patient
        self._cache = SeriesCache(self.root / "series", settings.cache_bytes)
        self._images: dict[str, SeriesFacts] = {}
        self._segs: dict[str, SeriesFacts] = {}
        self._sent: dict[str, int] = {}
        self._listed = float("-inf")
        self._listing = threading.Lock()
        self._resolving = threading.Lock()
        self._references: dict[str, Reference] | None = None
        self._about: dict[str, list[str]] | None = None

    def series(self) -> Mapping[str, SeriesFacts]:
        with self._listing:
            if time.monotonic() - self._listed >= self._settings.list_seconds:
                searches = [{**self._settings.filter, "Modality": name} for name in self._settings.modalities]
                found = {
                    facts.series: facts for search in searches for facts in self.pacs.find_series(search)
                }
                segs = {facts.series: facts for facts in self.pacs.find_series({"Modality": "SEG"})}
                self._images, self._segs, self._about = found, segs, None
                self._listed = time.monotonic()
                if segs.keys() - self._known().keys():
                    threading.Thread(target=self._resolve_all, daemon=True, name="segmentations").start()
            return self._images

    def facts(self, image: str) -> SeriesFacts:
        check_uid(image)
        if (known := self._images.get(image)) is not None:  # also of a PACS that is down by now
            return known
        if (listed := self.series().get(image)) is not None:
            return listed
        # viewers open series that the search filter leaves out
        found = next(
            (f for f in self.pacs.find_series({"SeriesInstanceUID": image}) if f.series == image), None
        )
        if found is None:
            raise BadRequest(f"There is no series {image} in the PACS.", 404)
        return check_image(found)

    @contextlib.contextmanager
    def use(self, image: str) -> Iterator[Path]:
        facts = self.facts(image)
        with self._fetched(facts) as folder:
            yield folder

    @contextlib.contextmanager
    def _fetched(self, facts: SeriesFacts) -> Iterator[Path]:
        # a series that has grown since is fetched again
        state = str(facts.slices) if facts.slices else ""
        with contextlib.ExitStack() as stack:
            try:
                folder = stack.enter_context(
                    self._cache.use(facts.series, state, lambda folder: self.pacs.download(facts, folder))
                )
            except BadRequest:
                self.refresh()
                raise
            except OSError as error:
                raise BadRequest(
                    f"The series cannot be kept on the server's disk ({error.strerror}). Make room, or give "
                    "another folder by --conf dicomweb_cache.",
                    507,
                ) from error
            yield folder

    def segmentations(self) -> Mapping[str, str]:
        self.series()
        return {image: segs[-1] for image in self._sorted() if (segs := self._not_dropped(image))}

    def segmentation_of(self, image: str) -> str:
        study = self.facts(image).study
        self.series()
        for seg in list(self._segs.values()):
            if seg.study == study and seg.series not in self._known():
                self._resolve(seg)
        return (self._not_dropped(image) or [""])[-1]

    @contextlib.contextmanager
    def segmentation_file(self, series: str) -> Iterator[Path]:
        facts = self._segs.get(series)
        if facts is None:
            raise BadRequest("The segmentation is no longer in the PACS.", 404)
        with self._fetched(facts) as folder:
            yield sorted(folder.iterdir())[-1]

    def ask_again(self) -> None:
        self.pacs.ask_again()

    def next_edition(self, image: str) -> int:
        # one that was sent without an answer may be in the PACS, and is sent again under its number
        return self._sent.setdefault(image, len(self._sorted().get(image, ())) + 1)

    def send(self, image: str, file: Path, data: Dataset) -> None:
        self.ask_again()
        try:
            self.pacs.store(data)
        finally:
            self.refresh()
        self._sent.pop(image, None)
        facts = self.facts(image)
        series = str(data.SeriesInstanceUID)
        self._segs[series] = replace(facts, series=series, modality="SEG", slices=1)
        self._remember(series, Reference((image,), made(data)))

    def pairs(self) -> dict[str, Path]:
        self.series()
        for seg in list(self._segs.values()):
            self._resolve(seg)
        return super().pairs()

    def refresh(self) -> None:
        self._listed = float("-inf")

    def state(self) -> dict[str, Any]:
        try:
            found = self.series()
        except BadRequest as error:
            return {"kind": self.kind, "state": "down", "message": str(error)}
        if found:
            return state_json(self.kind, [])
        listed = ", ".join(self._settings.modalities)
        message = f"The PACS lists no series of {listed}. Other modalities are listed with --conf modalities."
        return {"kind": self.kind, "state": "ok", "message": message}

    def _sorted(self) -> dict[str, list[str]]:
        """The SEG series of each image, the newest last."""
        if self._about is None:
            known, about = self._known(), dict[str, list[str]]()
            for seg in sorted(self._segs.keys() & known.keys(), key=lambda seg: (known[seg].made, seg)):
                for image in known[seg].about:
                    about.setdefault(image, []).append(seg)
            self._about = about
        return self._about

    def _not_dropped(self, image: str) -> list[str]:
        """Without those whose label was removed."""
        dropped = self.labels.image_info(image).get("dropped", ())
        return [seg for seg in self._sorted().get(image, ()) if seg not in dropped]

    def _known(self) -> dict[str, Reference]:
        """What SEGs are about, by their series; remembered over restarts, for a SEG never changes."""
        if self._references is None:
            try:
                noted = json.loads((self.root / _REFERENCES).read_text(encoding="ascii"))
                self._references = {
                    seg: Reference(tuple(about), made) for seg, (about, made) in noted.items()
                }
            except (OSError, ValueError, TypeError, AttributeError):
                self._references = {}
        return self._references

    def _remember(self, seg: str, reference: Reference) -> None:
        self._references, self._about = {**self._known(), seg: reference}, None
        with appear_whole(self.root / _REFERENCES, ".json") as name:
            noted = {seg: (list(one.about), one.made) for seg, one in self._references.items()}
            name.write_text(json.dumps(noted), encoding="ascii")

    def _resolve(self, seg: SeriesFacts) -> None:
        with self._resolving:
            if seg.series not in self._known():
                reference = self.pacs.reference(seg.study, seg.series)
                self._remember(seg.series, reference)
                if not reference.about:
                    logger.warning(
                        "the segmentation %s in the PACS does not name the series that it belongs to "
                        "(ReferencedSeriesSequence) and is left out; export it again",
                        seg.series,
                    )

    def _resolve_all(self) -> None:
        """Ask what segmentations are about, which their lists do not tell, one after the other behind the
        requests."""
        for seg in list(self._segs.values()):
            try:
                self._resolve(seg)
            except (BadRequest, OSError) as error:
                logger.info("segmentations are looked at later: %s", error)
                return
