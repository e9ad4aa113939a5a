"""The report as JSON, as one HTML page and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Final

from hostspec.errors import InvalidRequest
from hostspec.testing.report import Findings, Outcome, Report

__all__ = ["as_html", "as_json", "as_markdown", "renderer"]

_SLOWEST: Final = 5
_FACTS: Final = {
    "distribution": "driver",
    "options": "options",
    "contract": "contract",
    "filesystem": "file system",
    "kernel": "kernel",
    "python": "Python",
    "user": "run by",
    "shifts": "shifts at mount",
}
_STYLE: Final = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { margin: 2.5rem 0 .5rem } .made { opacity: .7; margin-top: 0 }
.verdict { font-size: 1.1rem; margin: .3rem 0 }
.bar { display: flex; gap: 2px; height: .6rem; border-radius: .3rem; overflow: hidden; margin-bottom: 1.5rem }
.bar .passed { background: #2e7d32 } .bar .failed { background: #c62828 }
.bar .skipped { background: #8888 } .bar .known-gap { background: #ef8f00 }
table { border-collapse: collapse; margin: 1.2rem 0 } th { border-bottom: 1px solid; font-weight: 600 }
td, th { padding: .2rem 1.2rem .2rem 0; text-align: left; vertical-align: top }
td { border-bottom: 1px solid #8884 }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
.zero { opacity: .4 } td.failed { color: #d32f2f }
code { font-size: 13px; overflow-wrap: anywhere }
"""

_TO_LOOK_AT: Final = (Outcome.FAILED.value, Outcome.GAP.value)

Row = Sequence[object]


def renderer(path: str) -> Callable[[Report], str]:
    """Return what makes the text of a report, by the end of the file's name.

    Raises:
        InvalidRequest: The name ends in none of ``.html``, ``.json``, ``.md``.
    """
    for ending, render in {".html": as_html, ".json": as_json, ".md": as_markdown}.items():
        if path.endswith(ending):
            return render
    raise InvalidRequest(f"conformance report {path}", "must end in .html, .json or .md")


def as_json(report: Report) -> str:
    """Return everything, for programs."""
    document = {
        "hostspec": report.hostspec,
        "contract": report.contract,
        "made": report.made,
        "subjects": [
            {
                "name": subject.name,
                **subject.facts,
                "counts": {each.value: subject.count(each) for each in Outcome},
                "seconds": round(subject.seconds(), 3),
                "tests": [
                    {
                        "name": each.name,
                        "area": each.area,
                        "outcome": each.outcome.value,
                        "reason": each.reason,
                        "seconds": round(each.seconds, 4),
                    }
                    for each in subject.tests
                ],
            }
            for subject in report.subjects
        ],
    }
    return json.dumps(document, indent=1) + "\n"


def as_markdown(report: Report) -> str:
    """Return the report for a README or a page of documentation."""
    lines = [_made(report), ""]
    for subject in report.subjects:
        lines += [f"### {_title(subject)}", ""]
        for heading, rows in _tables(subject):
            lines += _markdown_table(heading, rows)
    return "\n".join(lines).rstrip() + "\n"


def as_html(report: Report) -> str:
    """Return the report as one page that needs nothing else."""
    parts = [
        '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Conformance of graph drivers</title>',
        f"<style>{_STYLE}</style>\n<h1>Conformance of graph drivers</h1>",
        f'<p class="made">{escape(_made(report))}</p>',
    ]
    for subject in report.subjects:
        parts.append(f"<h2>{escape(_title(subject))}</h2>\n{_html_verdict(subject)}")
        # What an author has to look at comes first.
        tables = sorted(_tables(subject), key=lambda table: [table[0][0] != each for each in _TO_LOOK_AT])
        parts += [_html_table(heading, rows) for heading, rows in tables]
    return "\n".join((*parts, "</html>\n"))


def _made(report: Report) -> str:
    return f"Made {report.made} by hostspec {report.hostspec}, contract {report.contract}."


def _title(subject: Findings) -> str:
    return f"{subject.facts['driver']} on {subject.facts['filesystem']}"


def _tables(subject: Findings) -> Iterable[tuple[Row, list[Row]]]:
    """Yield each table of one subject, heading and rows, without those that are empty."""
    facts = [(label, _shown(subject.facts[key])) for key, label in _FACTS.items() if subject.facts[key]]
    capabilities = subject.facts["capabilities"]
    if isinstance(capabilities, dict):
        facts += [(f"`{key}`", _shown(value)) for key, value in capabilities.items() if key != "contract"]
    areas = [(area, *_counts(subject, area)) for area in subject.areas()]
    slowest = sorted(subject.tests, key=lambda each: -each.seconds)[:_SLOWEST]
    tables: list[tuple[Row, list[Row]]] = [
        (("fact", "value"), list(facts)),
        (
            ("area", *(each.value for each in Outcome), "seconds"),
            [*areas, ("all", *_counts(subject, None))],
        ),
        (("skipped", "because"), [(number, reason) for reason, number in subject.skips()]),
    ]
    for outcome in (Outcome.GAP, Outcome.FAILED):
        rows: list[Row] = [(f"`{each.name}`", each.reason) for each in subject.not_passed(outcome)]
        tables.append(((outcome.value, "because"), rows))
    tables.append((("slowest", "seconds"), [(f"`{each.name}`", f"{each.seconds:.2f}") for each in slowest]))
    return [(heading, rows) for heading, rows in tables if rows]


def _counts(subject: Findings, area: str | None) -> tuple[object, ...]:
    return (*(subject.count(each, area) for each in Outcome), f"{subject.seconds(area):.1f}")


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "–" if value is None else str(value)


def _markdown_table(heading: Row, rows: Sequence[Row]) -> list[str]:
    lines = [heading, ["---"] * len(heading), *rows]
    return [*("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines), ""]


def _html_verdict(subject: Findings) -> str:
    """Return the counts in words, and as a bar of which each part is as long as its share."""
    counts = {each: subject.count(each) for each in Outcome}
    words = [f"{count} {each.value}" for each, count in counts.items() if count or each is Outcome.FAILED]
    bar = "".join(
        f'<span class="{_html_class(each.value)}" style="flex: {count}"></span>'
        for each, count in counts.items()
        if count
    )
    return f'<p class="verdict">{", ".join(words)}</p>\n<div class="bar">{bar}</div>'


def _html_table(heading: Row, rows: Sequence[Row]) -> str:
    numeric = [all(_is_number(cell) for cell in column) for column in zip(*rows, strict=True)]

    def row(tag: str, cells: Row) -> str:
        columns = zip(cells, heading, numeric, strict=True)
        return "<tr>" + "".join(_html_cell(tag, *each) for each in columns) + "</tr>"

    return "<table>\n" + "\n".join((row("th", heading), *(row("td", each) for each in rows))) + "\n</table>"


def _html_cell(tag: str, cell: object, heading: object, is_number: bool) -> str:  # noqa: FBT001 - of its column
    classes = [
        name
        for name, applies in {
            "number": is_number,
            "zero": cell == 0,
            "failed": heading == Outcome.FAILED.value and cell != 0,
        }.items()
        if applies
    ]
    opening = f'{tag} class="{" ".join(classes)}"' if classes else tag
    return f"<{opening}>{_html_text(cell)}</{tag}>"


def _html_class(text: str) -> str:
    return text.replace(" ", "-")


def _is_number(cell: object) -> bool:
    return str(cell).replace(".", "", 1).isdigit()


def _html_text(cell: object) -> str:
    text = str(cell)
    if text.startswith("`") and text.endswith("`"):
        return f"<code>{escape(text.strip('`'))}</code>"
    return escape(text)
