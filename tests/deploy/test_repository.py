"""Files for visitors of the repository: continuous integration, templates, citation, and what scripts say."""

from __future__ import annotations

import re

import segmed
import yaml
from deploy.tools import check, check_schema, tool
from running import ROOT

GITHUB = ROOT / ".github"


def test_workflows_follow_their_schema() -> None:
    check_schema("github-workflows", *(GITHUB / "workflows").glob("*.yml"))


def test_workflows_have_few_rights_and_run_what_there_is() -> None:
    for path in (GITHUB / "workflows").glob("*.yml"):
        text = path.read_text(encoding="utf-8")
        workflow = yaml.safe_load(text)
        assert workflow["permissions"] == {"contents": "read"}
        for name, job in workflow["jobs"].items():
            assert job["timeout-minutes"], name
        for script in re.findall(r"\./(scripts/\S+\.sh)", text):
            assert (ROOT / script).is_file(), script


def test_only_systems_that_were_never_run_cannot_fail_the_workflow() -> None:
    jobs = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    assert jobs["elsewhere"]["continue-on-error"] == "${{ matrix.os != 'ubuntu-latest' }}"
    assert not any(job.get("continue-on-error") for name, job in jobs.items() if name != "elsewhere")


def test_issue_forms_follow_their_schema_and_ask_for_no_patient_data() -> None:
    forms = [path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"]
    assert {path.stem for path in forms} == {"bug", "feature", "wrong_mask"}
    check_schema("github-issue-forms", *forms)
    check_schema("github-issue-config", GITHUB / "ISSUE_TEMPLATE" / "config.yml")
    for path in forms:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))["body"]
        if any(part["attributes"]["label"] in ("Pictures", "Log of the server") for part in body):
            assert body[0]["id"] == "privacy" and body[0]["attributes"]["options"][0]["required"] is True


def test_the_citation_names_this_version_and_licence() -> None:
    path = ROOT / "CITATION.cff"
    check_schema("citation-file-format", path)
    citation = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert citation["version"] == segmed.__version__
    assert citation["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")[:200]


def test_shellcheck_finds_nothing_in_the_scripts() -> None:
    scripts = [path for path in (ROOT / "scripts").glob("*.sh") if path.read_bytes().startswith(b"#!")]
    assert scripts
    check(
        tool("shellcheck"), "--severity=warning", "--external-sources", "--source-path=SCRIPTDIR/..", *scripts
    )
