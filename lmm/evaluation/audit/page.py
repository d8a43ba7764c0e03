"""``audit.html``, one page that needs nothing else, and ``audit.md``: findings, plots, tables."""

import html
from importlib import resources

from lmm.evaluation.audit import plots, tables
from lmm.evaluation.audit.findings import Finding, findings
from lmm.evaluation.audit.labels import VERDICTS, WHAT
from lmm.evaluation.audit.report import Audit, EvaluatorAudit
from lmm.evaluation.audit.tables import Table

_CARDS = ("It can be trusted to notice", "It cannot be trusted to notice", "Mind")
_SEES = (
    "Real motions are damaged in known ways, from slight to severe: a figure that is worth something ranks the "
    "strengths. Noise, the grey band, is 1.96 standard deviations of the difference between two halves of the real "
    "clips. FID is that of one half's motions from the real ones of the other, so the real row is what no difference "
    "looks like on so many clips."
)
_SPLITS = (
    "Captions that say the same, twins, cannot be told apart, so the plain score has a ceiling below 1. Where twins "
    "count, any motion whose caption is identical is a hit. Intervals: 95 %, over clips."
)
_NOVELTY = (
    "Captions of all splits in five parts, by their distance to the nearest training caption; all share one set of "
    "pools. A fall to the right says that the evaluator knows its training texts rather than language."
)
_AGREES = (
    "Rank correlation of each figure over all damaged rows. Where it is low, a result that one evaluator shows is a "
    "result about that evaluator."
)


def page(made: Audit) -> str:
    """The page."""
    title = _text(f"Audit of {_names(made)}")
    body = [f"<header><h1>{title}</h1><p>{_text(_about(made))}</p></header>"]
    if made.agreement:
        body.append(_section("Do the evaluators agree?", _AGREES, _table(tables.agreement_table(made.agreement))))
    with plots.style():
        for evaluator in made.evaluators:
            if len(made.evaluators) > 1:
                body.append(f'<h1 class="evaluator">{_text(evaluator.name)}</h1>')
            body += _sections(evaluator)
    body.append(f"<footer>{''.join(f'<p>{_text(line)}</p>' for line in _provenance(made))}</footer>")
    style = resources.files("lmm.evaluation.audit").joinpath("page.css").read_text(encoding="utf-8")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{style}</style></head>'
        f"<body>{''.join(body)}</body></html>\n"
    )


def markdown(made: Audit) -> str:
    """The findings and all tables."""
    parts = [f"# Audit of {_names(made)}", _about(made)]
    if made.agreement:
        parts += ["## Do the evaluators agree?", _AGREES, tables.agreement_table(made.agreement).markdown()]
    for evaluator in made.evaluators:
        parts.append(f"## {evaluator.name}")
        for title, found in zip(_CARDS, findings(evaluator), strict=True):
            parts += [f"### {title}", "\n".join(f"* **{f.about}**: {f.found}" for f in found) or "Nothing."]
        parts += ["### What it sees", _SEES, tables.overview(evaluator.response).markdown()]
        parts += ["### Real motions of each split", _SPLITS, tables.split_table(evaluator.splits).markdown()]
        if evaluator.novelty:
            parts += ["### Texts that are new to it", _NOVELTY, tables.novelty_table(evaluator.novelty).markdown()]
        parts += ["### Every row", tables.every_row(evaluator.response).markdown()]
    return "\n\n".join([*parts, *_provenance(made)]) + "\n"


def _sections(audit: EvaluatorAudit) -> list[str]:
    """All about one evaluator."""
    response = audit.response
    cards = [
        f'<div class="card {kind}"><h3>{title}</h3>{_list(found)}</div>'
        for title, kind, found in zip(_CARDS, ("good", "bad", "mind"), findings(audit), strict=True)
    ]
    legend = "".join(f'<li><b class="{_css(name)}">{name}</b> {_text(what)}</li>' for name, what in VERDICTS.items())
    strips = []
    for kind in response.corruptions:
        caption = f"<figcaption><b>{_text(kind)}</b> {_text(WHAT[kind])}</figcaption>"
        strips.append(f"<figure>{caption}{plots.strip(response, kind)}</figure>")
    split_bars = f"<figure>{plots.split_bars(audit.splits)}</figure>{_table(tables.split_table(audit.splits))}"
    out = [
        _section("In short", "", f'<div class="cards">{"".join(cards)}</div>'),
        _section("What it sees", _SEES, f'{_table(tables.overview(response))}<ul class="legend">{legend}</ul>'),
        _section("Damage by damage", "", "".join(strips)),
        _section("Real motions of each split", _SPLITS, split_bars),
    ]
    if audit.novelty:
        plot = f"<figure>{plots.novelty_plot(audit.novelty)}</figure>"
        out.append(_section("Texts that are new to it", _NOVELTY, plot + _table(tables.novelty_table(audit.novelty))))
    return [*out, _section("Every row", "", _table(tables.every_row(response)))]


def _section(title: str, said: str, content: str) -> str:
    told = f'<p class="said">{_text(said)}</p>' if said else ""
    return f"<section><h2>{_text(title)}</h2>{told}{content}</section>"


def _list(found: list[Finding]) -> str:
    items = "".join(f"<li><b>{_text(about)}</b> {_text(what[0].upper() + what[1:])}</li>" for about, what in found)
    return f"<ul>{items}</ul>" if items else "<p>Nothing.</p>"


def _table(table: Table) -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in table.head)
    rows = []
    for number, row in enumerate(table.rows):
        verdicts = [table.verdicts.get((number, column)) for column in range(len(row))]
        cells = [
            f'<td class="{_css(verdict)}">{_text(cell)}</td>' if verdict else f"<td>{_text(cell)}</td>"
            for verdict, cell in zip(verdicts, row, strict=True)
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _names(made: Audit) -> str:
    return " and ".join(evaluator.name for evaluator in made.evaluators)


def _about(made: Audit) -> str:
    first = made.evaluators[0]
    clips = ", ".join(f"{split.split} {split.clips} of {split.available}" for split in first.splits)
    return f"On {made.data['name']} (clips: {clips}); damage on {first.split}, seed {made.asked['seed']}."


def _provenance(made: Audit) -> list[str]:
    """Fingerprints, versions, time."""
    lines = [f"Data {made.data['name']}, fingerprint {made.data['fingerprint'][:16]}."]
    for evaluator in made.evaluators:
        lines.append(
            f"{evaluator.name}: {evaluator.where}, fingerprint {evaluator.fingerprint[:16]}, "
            f"{evaluator.dim} dimensions, unit {evaluator.unit}, at most {evaluator.max_frames or 'any number of'} "
            f"frames; {evaluator.settings}"
        )
    versions = ", ".join(f"{name} {version}" for name, version in made.environment["versions"].items() if version)
    return [*lines, f"{made.seconds:.0f} s; {versions}; every value is in audit.json."]


def _css(verdict: str) -> str:
    return verdict.replace(" ", "-")


def _text(words: str) -> str:
    return html.escape(words)
