#!/usr/bin/env python
"""What SegMed is made of: the locks with hashes, the bill of materials, the licences, and known
vulnerabilities.

    python scripts/supply_chain.py lock         # writes requirements.lock and requirements-dev.lock
    python scripts/supply_chain.py platforms    # wheels for Linux, Windows, macOS and Python 3.11 to 3.13?
    python scripts/supply_chain.py report       # writes supply-chain/{sbom.json, licences.md, audit.json}

Its tools are installed apart, as they need packages that SegMed does not: `python -m venv TOOLS`,
`TOOLS/bin/pip install -r requirements-supply-chain.txt`, then `--tools TOOLS/bin`. `report` looks at the
environment of the Python that runs it.

Exit codes: 0 nothing to complain about; 1 known vulnerabilities, or a licence that is not allowed; 2 wrong
use, or a tool is missing or has failed; 3 the database of vulnerabilities could not be reached, or does not
have all packages, so that nothing is known about them, and the rest is in order.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import package_lock

ROOT = Path(__file__).resolve().parents[1]
CLEAN, COMPLAINTS, FAILED, UNKNOWN = range(4)

# By the words of SPDX expressions and of classifiers. SegMed distributes none of these packages, so that a
# licence that asks for changes of the package itself to be published (weak copyleft) is no obstacle, and one
# that spreads is.
_PERMISSIVE = re.compile(
    r"\b(MIT|MIT-0|MIT-CMU|X11|BSD|0BSD|Apache|ISC|PSF|Python-2\.0|Python Software Foundation|CNRI-Python|"
    r"HPND|Unlicense|Zlib|CC0-1\.0|OLDAP-2\.8|BSL-1\.0|blessing|public domain|Public-Domain|NCSA)\b",
    re.IGNORECASE,
)
_WEAK = re.compile(r"\b(LGPL|Lesser General Public|MPL|Mozilla Public|EPL)", re.IGNORECASE)
_STRONG = re.compile(
    r"(?<!L)GPL|Affero|(?<!Lesser )General Public License|SSPL|Commons[ -]Clause|Non-?Commercial",
    re.IGNORECASE,
)
_NVIDIA = re.compile(r"^(nvidia|cuda)-")
# looked up by hand, as the packages' metadata says nothing that can be read
_LOOKED_UP = {"huey": "MIT", "skops": "MIT"}


class Trouble(Exception):
    """A tool is missing or has failed; the message is for the user."""


def tool(name: str, folder: Path | None) -> str:
    """The program of that name, in the folder, beside this Python or on the path. Raises Trouble if it is
    nowhere."""
    for place in (folder, Path(sys.executable).parent):
        if place and (place / name).is_file():
            return str(place / name)
    if found := shutil.which(name):
        return found
    raise Trouble(
        f"{name} is not installed. pip install -r requirements-supply-chain.txt, best in a venv of its own."
    )


def lock(folder: Path | None, upgrade: bool) -> int:
    """Write both locks."""
    try:
        made = package_lock.write_locks(tool("uv", folder), upgrade)
    except (package_lock.UnresolvedError, ValueError) as error:
        raise Trouble(f"The lock could not be made: {error}") from error
    for path, count in made.items():
        print(f"{path.name}: {count} packages")
    return CLEAN


def platforms(folder: Path | None) -> int:
    """Say for which systems there are wheels of everything."""
    text, good = package_lock.table(tool("uv", folder))
    print(text)
    return CLEAN if good else COMPLAINTS


def licence_of(component: Mapping[str, Any]) -> str:
    """The licences of a component of the bill of materials, else the free text of its metadata; "" if there
    is none."""
    told = []
    for one in component.get("licenses", ()):
        licence = one.get("license", {})
        text = one.get("expression") or licence.get("id") or licence.get("name") or ""
        told.append(text.replace("License :: ", "").replace("OSI Approved :: ", ""))
    if not any(told):
        try:
            told = [(metadata.metadata(component["name"]).get("License") or "").strip().split("\n")[0][:80]]
        except metadata.PackageNotFoundError:
            return ""
    return " / ".join(sorted({text for text in told if text}))


def verdict(name: str, licence: str) -> str:
    """`yes`, `yes, unchanged` (weak copyleft), `NVIDIA's terms`, `no`, or `look` where nothing can be
    read."""
    licence = _LOOKED_UP.get(name, licence)
    choices = [part for part in re.split(r"\bOR\b", licence) if part]
    if any(
        _PERMISSIVE.search(part) and not _STRONG.search(part) and not _WEAK.search(part) for part in choices
    ):
        return "yes"
    if _NVIDIA.match(name):
        return "NVIDIA's terms"
    if any(_WEAK.search(part) and not _STRONG.search(_WEAK.sub("", part)) for part in choices):
        return "yes, unchanged"
    return "no" if _STRONG.search(licence) else "look"


def licences(components: Sequence[Mapping[str, Any]]) -> tuple[str, list[str]]:
    """The report as Markdown, and the packages whose licence is not allowed."""
    rows, refused = [], []
    for one in sorted(components, key=lambda c: str(c["name"]).lower()):
        name, said = str(one["name"]), licence_of(one)
        found = verdict(name.lower(), said)
        if found == "no":
            refused.append(name)
        shown = _LOOKED_UP.get(name.lower(), said) or "not told"
        rows.append(f"| {name} | {one.get('version', '')} | {shown.replace('|', '/')} | {found} |")
    count = {word: sum(row.endswith(f"| {word} |") for row in rows) for word in ("look", "no")}
    head = (
        f"# Licences of {len(rows)} packages\n\n`yes, unchanged`: changes of the package itself would have "
        f"to be "
        f"published. `look`: its metadata tells no licence that is known here ({count['look']}). `no`: not "
        f"allowed "
        f"({count['no']}).\n\n"
        "| package | version | licence | allowed |\n|---|---|---|---|\n"
    )
    return head + "\n".join(rows) + "\n", refused


def audit(folder: Path | None, out: Path) -> int:
    """Ask PyPI's database about the versions in the lock."""
    command = [
        tool("pip-audit", folder),
        "--requirement",
        str(package_lock.LOCK),
        "--disable-pip",
        "--require-hashes",
    ]
    done = subprocess.run(
        [*command, "--format", "json", "--progress-spinner", "off"], capture_output=True, text=True
    )
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        print(f"vulnerabilities: NOT KNOWN, the database could not be asked ({last:.200})", file=sys.stderr)
        return UNKNOWN
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    bad = {one["name"]: [v["id"] for v in one["vulns"]] for one in found if one.get("vulns")}
    skipped = [one["name"] for one in found if "skip_reason" in one]
    for name, ids in bad.items():
        print(f"vulnerable: {name}: {', '.join(ids)}", file=sys.stderr)
    print(f"vulnerabilities: {len(bad)} of {len(found) - len(skipped)} packages")
    if skipped:  # a mirror without the database says so of each package
        print(
            f"vulnerabilities: NOT KNOWN of {len(skipped)} of {len(found)} packages, which the database "
            f"does not have: {', '.join(skipped[:5])}{', …' if len(skipped) > 5 else ''}",
            file=sys.stderr,
        )
    return COMPLAINTS if bad else UNKNOWN if skipped else CLEAN


def report(folder: Path | None, out: Path) -> int:
    """Bill of materials, licences, vulnerabilities."""
    out.mkdir(parents=True, exist_ok=True)
    sbom = out / "sbom.json"
    command = [
        tool("cyclonedx-py", folder),
        "environment",
        "--output-format",
        "JSON",
        "--output-file",
        str(sbom),
    ]
    if subprocess.run([*command, "--output-reproducible", sys.executable]).returncode:
        raise Trouble("cyclonedx-py failed, see above.")
    components = json.loads(sbom.read_text(encoding="utf-8"))["components"]
    text, refused = licences(components)
    (out / "licences.md").write_text(text, encoding="utf-8")
    print(f"{len(components)} packages; licences that are not allowed: {', '.join(refused) or 'none'}")
    audited = audit(folder, out / "audit.json")
    return COMPLAINTS if refused or audited == COMPLAINTS else audited


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("lock", "platforms", "report"))
    parser.add_argument("--upgrade", action="store_true", help="lock: take the newest of what is not pinned")
    parser.add_argument("--tools", type=Path, help="folder with uv, cyclonedx-py and pip-audit")
    parser.add_argument("--out", type=Path, default=ROOT / "supply-chain", help="folder for the reports")
    a = parser.parse_args()
    try:
        if a.what == "report":
            return report(a.tools, a.out)
        return lock(a.tools, a.upgrade) if a.what == "lock" else platforms(a.tools)
    except Trouble as error:
        print(error, file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
