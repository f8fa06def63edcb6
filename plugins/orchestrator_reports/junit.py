"""JUnit XML of a check: one test case a criterion.

Elements and attributes follow the schema of Jenkins' xUnit plugin (junit-10.xsd), which GitLab, Azure Pipelines and others
read.
"""

import platform
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from orchestrator.plugin import CheckResult, Criterion
from orchestrator.plugin.report import check_rows, check_verdict, formatting

SUITE, CLASS = "orchestrate check", "orchestrate.check"
CHOSEN = {None: "error", "pass": "skipped", "fail": "failure"}


def render_junit(found: CheckResult) -> str:
    """Return the text of the file.

    A regression is a failure, an unjudged criterion is skipped. An undecided criterion is an error; with --noisy it is
    a failure or skipped, but never a passed test.
    """
    marks = [_mark(found, criterion) for criterion in found.criteria]
    suite = ET.Element(
        "testsuite",
        {
            "name": SUITE,
            "tests": str(len(found.criteria)),
            "failures": str(marks.count("failure")),
            "errors": str(marks.count("error")),
            "skipped": str(marks.count("skipped")),
            "time": f"{found.seconds:.3f}",
            "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
            "hostname": _clean(platform.node() or "unknown"),
        },
    )
    properties = ET.SubElement(suite, "properties")
    for name in ("baseline", "candidate", "target", "device", "runtime", "threads"):
        ET.SubElement(properties, "property", {"name": name, "value": _clean(getattr(found, name))})
    for criterion, row, mark in zip(found.criteria, check_rows(found), marks, strict=True):
        seconds = float(criterion.details.get("seconds", 0.0))
        case = ET.SubElement(suite, "testcase", {"classname": CLASS, "name": criterion.name, "time": f"{seconds:.3f}"})
        if mark is not None:
            element = ET.SubElement(case, mark, {"message": _clean(_message(found, criterion))})
            if mark != "skipped":
                element.set("type", criterion.verdict)
        figures = (
            f"baseline {row.baseline}, candidate {row.candidate}, change {row.change}, limit {row.limit}: {row.verdict}",
            criterion.reason,
            *([criterion.warning] if criterion.warning and criterion.warning not in criterion.reason else []),
        )
        ET.SubElement(case, "system-out").text = _clean("\n".join(figures))
    ET.SubElement(suite, "system-out").text = _clean(check_verdict(found))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _mark(found: CheckResult, criterion: Criterion) -> str | None:
    if criterion.verdict == "undecided":
        return CHOSEN[found.noisy]
    return {"ok": None, "regressed": "failure", "not judged": "skipped"}[criterion.verdict]


def _message(found: CheckResult, criterion: Criterion) -> str:
    chosen = f"too noisy to say, and --noisy {found.noisy} was chosen: " if found.noisy else "too noisy to say: "
    return (chosen if criterion.verdict == "undecided" else "") + criterion.reason


def _clean(text: object) -> str:
    """Return text without characters that XML 1.0 cannot represent."""
    return formatting.clean(text).replace("\ufffe", "").replace("\uffff", "")
