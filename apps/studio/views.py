"""Pieces of the page as HTML. Every text is escaped here, and only here; it must not know jobs or how to ask for one.

What a model wrote, what a file is called and what a user typed are strangers' words: they leave as text, never as tags.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from restore_bridge.report import HONESTY
from zoomiqa.assessors.compact.diagnosis import RULES
from zoomiqa.imaging import encode_picture
from zoomiqa.imaging.signals import SIGNALS
from zoomiqa.text import plain
from zoomiqa.types import SECTION_TITLES
from zoomiqa.vocabulary import TERMS

_CHARTED = (
    "blur",
    "grain",
    "blocking",
    "banding",
    "oversharp",
    "dark",
    "overexposure",
    "low_contrast",
    "haze",
    "cast",
    "dull",
    "garish",
)
"""Rules of the embedded diagnosis whose signals the chart shows against their limits."""

_TAGS = re.compile(r"</?(?:think|answer)>")
_MAP_ALPHA = 0.62


def text(value: object) -> Markup:
    """A stranger's text: no control or invisible characters, every tag escaped."""
    return escape(plain(str(value)))


def head(links: Mapping[str, str]) -> Markup:
    """The line above everything."""
    items = Markup(" ").join(
        Markup('<a href="{}" target="_blank" rel="noopener">{}</a>').format(url, name) for name, url in links.items()
    )
    return Markup(
        '<header class="zq-head"><div><h1>What is wrong, and what can be done</h1>'
        "<p>Zoom-IQA looks at a photograph twice and says why; restore-bridge repairs it on those words and keeps the"
        " better picture.</p></div>"
        '<nav aria-label="Page"><button type="button" class="zq-night" aria-label="Switch between dark and light"'
        " onclick=\"document.body.classList.toggle('dark')\">◐</button> {}</nav></header>"
    ).format(items)


def shell(links: Mapping[str, str], tabs: Sequence[str]) -> Markup:
    """The page before its controls are there: the same areas, whose places (`data-place`) are filled as words come."""
    blank = Markup('<div class="zq-blank zq-keep"></div>')
    areas = (
        ("1 · Picture", Markup('<div data-place="stage"><div class="zq-blank zq-blank-picture zq-keep"></div></div>')),
        (
            "2 · Assessment",
            Markup(
                '<div data-place="rating"><div class="zq-blank zq-blank-rating zq-keep"></div></div>'
                '<div data-place="reasoning">{}</div>'
            ).format(reasoning({}, False)),
        ),
        ("3 · Restoration", blank * 2),
    )
    return Markup(
        '<div id="zq-shell">{}<div class="zq-shell-tabs" aria-hidden="true">{}</div>'
        '<div class="zq-shell-areas">{}</div></div>'
    ).format(
        head(links),
        Markup("").join(Markup("<span>{}</span>").format(name) for name in tabs),
        Markup("").join(
            Markup('<section class="zq-area"><h2>{}</h2>{}</section>').format(title, body) for title, body in areas
        ),
    )


def empty(words: str, *, is_settled: bool = False) -> Markup:
    """A place where something will be; settled where nothing is on its way there."""
    return Markup('<p class="zq-empty{}">{}</p>').format(" zq-settled" if is_settled else "", words)


def stage(
    url: str,
    name: str,
    size: Sequence[int],
    boxes: Sequence[Mapping[str, Any]],
    overlay: str = "",
    legend: Markup | str = "",
) -> Markup:
    """The picture with the regions that were looked at, numbered by look."""
    width, height = size
    marks = Markup("").join(
        Markup(
            '<div class="zq-box" style="left:{:.3f}%;top:{:.3f}%;width:{:.3f}%;height:{:.3f}%">'
            "<span>look {}</span></div>"
        ).format(100 * x1 / width, 100 * y1 / height, 100 * (x2 - x1) / width, 100 * (y2 - y1) / height, item["look"])
        for item in boxes
        for x1, y1, x2, y2 in [item["box"]]
    )
    layer = Markup('<img class="zq-map" alt="" src="{}">').format(overlay) if overlay else ""
    where = f", with {len(boxes)} region{'s' * (len(boxes) != 1)} looked at closely" if boxes else ""
    return Markup(
        '<figure class="zq-stage"><div class="zq-frame"><img src="{}" alt="{}{}" width="{}" height="{}">{}{}</div>'
        "<figcaption>{} · {} × {} px{}</figcaption></figure>"
    ).format(url, text(name), where, width, height, layer, marks, text(name), width, height, legend)


def reasoning(looks: Mapping[int, Mapping[str, Any]], is_done: bool) -> Markup:
    """The looks so far: sections where a look was read, else its words as they come."""
    parts = [_look(index, looks[index]) for index in sorted(looks)]
    if not is_done:
        parts.append(Markup('<p class="zq-busy" role="status">looking…</p>'))
    return Markup('<div class="zq-looks" aria-live="polite" aria-busy="{}">{}</div>').format(
        "false" if is_done else "true", Markup("").join(parts)
    )


def _look(index: int, look: Mapping[str, Any]) -> Markup:
    box = look.get("box")
    title = "the whole picture" if not box else f"zoom into x {box[0]}–{box[2]}, y {box[1]}–{box[3]}"
    rating = look.get("rating")
    shown = Markup(' <span class="zq-soft">rating {:.2f}</span>').format(rating) if rating is not None else ""
    sections = look.get("sections")
    if sections:
        body = Markup("").join(
            Markup("<h4>{}</h4><p>{}</p>").format(
                "Closer Look" if key == "summary" and box else SECTION_TITLES[key], text(words)
            )
            for key, words in sections.items()
            if words
        )
    else:
        body = Markup('<p class="zq-raw">{}</p>').format(text(_TAGS.sub("", look.get("text", "")).strip()))
    return Markup('<section class="zq-look{}"><h3><b>Look {}</b> · {}{}</h3>{}</section>').format(
        " zq-zoomed" if box else "", index + 1, title, shown, body
    )


def rating(assessment: Mapping[str, Any], label: str = "Rating") -> Markup:
    """The rating with its expected error, as figures and on a scale."""
    value, spread = assessment["rating"], assessment["spread"]
    if value is None:
        return empty("no rating")
    place = (value - 1) * 25
    low, high = max(1.0, value - (spread or 0)), min(5.0, value + (spread or 0))
    around = f"± {spread:.2f}" if spread is not None else "spread unknown"
    who = (assessment.get("assessor") or {}).get("name", "")
    return Markup(
        '<div class="zq-rating" role="img" aria-label="{}: {:.2f} of 5, {}">'
        '<div class="zq-figure"><span>{}</span><b>{:.2f}</b><i>{} of 5 ↑</i></div>'
        '<div class="zq-scale"><i class="zq-band" style="left:{:.1f}%;width:{:.1f}%"></i>'
        '<i class="zq-point" style="left:{:.1f}%"></i></div>'
        '<div class="zq-ticks"><span>1 bad</span><span>2</span>'
        "<span>3 fair</span><span>4</span><span>5 excellent</span></div>"
        '<p class="zq-soft">by {}, no reference, higher is better</p></div>'
    ).format(label, value, around, label, value, around, (low - 1) * 25, (high - low) * 25, place, text(who))


def findings(assessment: Mapping[str, Any]) -> Markup:
    """The measured flaws that hold in the end."""
    rounds = assessment["rounds"]
    found = rounds[-1]["findings"] if rounds else []
    if not found:
        return Markup("")
    chips = Markup("").join(
        Markup('<li><b>{}</b> {} <span class="zq-soft">{}</span></li>').format(
            TERMS[item["flaw"]].phrase if item["flaw"] in TERMS else item["flaw"], item["severity"], item["region"]
        )
        for item in found
    )
    return Markup('<ul class="zq-chips" aria-label="Measured flaws">{}</ul>').format(chips)


def chart(values: Mapping[str, float | None]) -> Markup:
    """Measured signals against the limit from which each is a flaw: the mark in the middle."""
    rows = []
    for name in _CHARTED:
        rule = RULES[name]
        value = values.get(rule.signal)
        if value is None:
            continue
        strength = rule.strength(value)
        is_higher_worse = rule.extreme > rule.limit
        share = value / rule.limit if is_higher_worse else rule.limit / max(value, 1e-9)
        length = min(100.0, 50 * share)
        info = SIGNALS[rule.signal]
        verdict = "beyond its limit" if strength > 0 else "within its limit"
        rows.append(
            Markup(
                '<li title="{}"><span>{}</span><div class="zq-bar{}"'
                ' role="img" aria-label="{}: {:.3g} {}, limit {:.3g}, {}">'
                '<i style="width:{:.1f}%"></i><u></u></div><em>{:.3g}{}</em></li>'
            ).format(
                info.meaning,
                TERMS[rule.flaw].phrase,
                " zq-over" if strength > 0 else "",
                TERMS[rule.flaw].phrase,
                value,
                info.unit,
                rule.limit,
                verdict,
                length,
                value,
                " !" if strength > 0 else "",
            )
        )
    return Markup(
        '<ul class="zq-chart" aria-label="Measured signals">{}</ul>'
        '<p class="zq-soft">The line in the middle is the limit'
        " from which a signal may be stated as a flaw; “!” marks one beyond it.</p>"
    ).format(Markup("").join(rows))


def map_layer(grid: Sequence[Sequence[float | None]], name: str) -> tuple[str, Markup]:
    """A signal's map as a see-through picture (data address) and its legend."""
    values = np.array([[np.nan if cell is None else cell for cell in row] for row in grid], float)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "", Markup(" · nothing to measure for this map")
    low, high = float(finite.min()), float(finite.max())
    level = np.nan_to_num((values - low) / (high - low) if high > low else np.zeros_like(values))
    colours = np.array([[20, 40, 90], [40, 110, 150], [230, 200, 90], [200, 40, 60]], float)
    steps = np.linspace(0, 1, len(colours))
    rgb = np.stack([np.interp(level, steps, colours[:, channel]) for channel in range(3)], axis=-1)
    alpha = np.where(np.isfinite(values), 255 * _MAP_ALPHA, 0)
    rgba = np.dstack([rgb, alpha]).round().astype(np.uint8)
    uri = "data:image/png;base64," + base64.b64encode(encode_picture(rgba, ".png")).decode()
    info = SIGNALS[name]
    legend = Markup(' · <span class="zq-legend"><i></i> {}: {:.3g} to {:.3g} {}</span>').format(
        name.replace("_", " "), low, high, info.unit
    )
    return uri, legend


def progress(step: int, of: int, doing: str) -> Markup:
    """How far a restoration is."""
    return Markup(
        '<div class="zq-progress" role="status"><progress max="{}" value="{}"></progress><span>{}</span></div>'
    ).format(max(1, of), step, doing)


def slider(before: str, after: str, name: str, size: Sequence[int]) -> Markup:
    """Before and after under one handle; the handle is a range, so that keys move it."""
    return Markup(
        '<div class="zq-slider" style="--cut:50%"><img src="{}" alt="{}, restored" width="{}" height="{}">'
        '<img class="zq-top" src="{}" alt="{}, as it came">'
        '<input type="range" min="0" max="100" value="50" aria-label="Share of the original shown, in per cent"'
        " oninput=\"this.parentNode.style.setProperty('--cut', this.value + '%')\">"
        '<div class="zq-edge"></div><span class="zq-tag zq-left">before'
        '</span><span class="zq-tag zq-right">after</span></div>'
    ).format(after, text(name), size[0], size[1], before, text(name))


def result(record: Mapping[str, Any], base: str, files: Mapping[str, str], name: str, size: Sequence[int]) -> Markup:
    """The end of a restoration: the pictures on one side, what is to be said of them on the other."""
    left = slider(f"{base}/{files['before']}", f"{base}/{files['after']}", name, size) + downloads(base, files)
    right = verdict(record) + scores(record["scores"]) + candidates(record)
    return Markup('<h2>4 · Result</h2><div class="zq-result"><div>{}</div><div>{}{}</div></div>').format(
        left, right, side_by_side(record)
    )


def verdict(record: Mapping[str, Any]) -> Markup:
    """What was kept, and why."""
    is_restored = record["kept"] == "restored"
    reason = plain(record["reason"])
    return Markup('<p class="zq-verdict"><span class="zq-badge{}">{}</span> {}.</p>').format(
        " zq-good" if is_restored else "",
        "restored picture kept" if is_restored else "original kept",
        reason[:1].upper() + reason[1:],
    )


def scores(rows: Iterable[Mapping[str, Any]]) -> Markup:
    """Each metric before and after, with direction, range, kind, and the change in sign and word."""
    lines = []
    for row in rows:
        before, after = row["before"], row["after"]
        change = None if before is None or after is None else after - before
        is_up = row["direction"] == "higher"
        tone = "" if not change else ("better" if (change > 0) == is_up else "worse")
        low, high = row["range"]
        bounds = f"{_bound(low)} to {_bound(high)}"
        lines.append(
            Markup(
                '<tr><th scope="row">{} {}<small>{}, {}</small></th>'
                '<td>{}</td><td>{}</td><td class="zq-{}">{}</td></tr>'
            ).format(
                row["metric"],
                "↑" if is_up else "↓",
                row["kind"],
                bounds,
                _figure(before),
                _figure(after),
                tone or "same",
                "–" if change is None else f"{change:+.3f} {tone}",
            )
        )
    return Markup(
        '<div class="zq-scroll"><table class="zq-table">'
        "<caption>Scores: ↑ higher is better, ↓ lower is better</caption><thead><tr>"
        '<th scope="col">Metric</th><th scope="col">Before</th>'
        '<th scope="col">After</th><th scope="col">Change</th></tr></thead>'
        "<tbody>{}</tbody></table></div>"
    ).format(Markup("").join(lines))


def candidates(record: Mapping[str, Any]) -> Markup:
    """What was tried."""
    lines = Markup("").join(
        Markup('<tr><th scope="row">{}</th><td>{}</td><td>{:g}</td><td>{}</td><td>{}</td><td>{}</td></tr>').format(
            item["index"],
            item["seed"],
            item["strength"],
            _figure(item["rating"], 2),
            _figure(item["consistency"]),
            text(item["reason"]),
        )
        for item in record["candidates"]
    )
    return Markup(
        '<details class="zq-fold"><summary>Candidates tried ({})'
        '</summary><div class="zq-scroll"><table class="zq-table">'
        '<thead><tr><th scope="col">No.</th><th scope="col">Seed</th>'
        '<th scope="col">Strength</th><th scope="col">Rating ↑</th>'
        '<th scope="col">Consistency ↑</th><th scope="col">Verdict'
        "</th></tr></thead><tbody>{}</tbody></table></div></details>"
    ).format(len(record["candidates"]), lines)


def side_by_side(record: Mapping[str, Any]) -> Markup:
    """Both assessments."""
    after = record["after"]
    label = "After" if record["kept"] == "restored" else "Best tried"
    columns = [
        Markup('<div class="zq-side">{}{}{}</div>').format(
            rating(record["before"], "Before"), findings(record["before"]), _words(record["before"])
        )
    ]
    if after:
        columns.append(
            Markup('<div class="zq-side">{}{}{}</div>').format(rating(after, label), findings(after), _words(after))
        )
    return Markup('<div class="zq-sides">{}</div>').format(Markup("").join(columns))


def _words(assessment: Mapping[str, Any]) -> Markup:
    parts = Markup("").join(
        Markup("<h4>{}</h4><p>{}</p>").format(SECTION_TITLES[key], text(words))
        for key, words in (("directions", assessment["positive"]), ("issues", assessment["negative"]))
        if words
    )
    return Markup('<details class="zq-fold"><summary>In words</summary>{}</details>').format(parts)


def downloads(base: str, files: Mapping[str, str]) -> Markup:
    """Links to what was made."""
    labels = {"picture": "Picture", "all": "Picture, sidecar and report (zip)", "sidecar": "Sidecar (JSON)"}
    links = [
        Markup('<a class="zq-link" href="{}/{}" download>{}</a>').format(base, files[role], label)
        for role, label in labels.items()
        if role in files
    ]
    links.append(
        Markup('<a class="zq-link" href="{}/{}" target="_blank" rel="noopener">Report</a>').format(
            base, files["report"]
        )
    )
    return Markup('<p class="zq-links">{}</p><p class="zq-honesty">{}</p>').format(Markup(" ").join(links), HONESTY)


def sent(prompts: Mapping[str, Any]) -> Markup:
    """What an encoder would get, and what did not fit."""
    report = prompts["report"]
    regional = Markup("").join(
        Markup("<li>{}</li>").format(text(f"{part['positive']} / {part['negative']}")) for part in prompts["regional"]
    )
    cut = Markup("").join(
        Markup("<li>{} <small>{}</small></li>").format(text(part["text"]), text(part["reason"]))
        for part in report["cut"]
    )
    budget = f"{report['budget_tokens']} tokens" if report["budget_tokens"] else "no bound"
    return Markup(
        '<dl class="zq-sent"><dt>positive ({} tokens)</dt><dd>{}</dd><dt>negative ({} tokens)</dt><dd>{}</dd></dl>'
        '<p class="zq-soft">budget: {} ({})</p>{}{}'
    ).format(
        report["positive_tokens"],
        text(prompts["positive"]) or "–",
        report["negative_tokens"],
        text(prompts["negative"]) or "–",
        report["encoder"],
        budget,
        Markup("<h4>For regions</h4><ul>{}</ul>").format(regional) if regional else "",
        Markup("<h4>Left out</h4><ul>{}</ul>").format(cut) if cut else "",
    )


def failure(error: Mapping[str, str]) -> Markup:
    """What went wrong, in our words."""
    return Markup('<p class="zq-failure" role="alert"><b>{}</b> {}</p>').format(error["code"], text(error["message"]))


def batch_table(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """A batch so far."""
    lines = Markup("").join(
        Markup('<tr><th scope="row">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>').format(
            text(row["name"]),
            row["state"],
            _figure(row.get("before"), 2),
            _figure(row.get("after"), 2),
            text(row.get("issue") or row.get("error") or "–"),
            _batch_links(row),
        )
        for row in rows
    )
    return Markup(
        '<div class="zq-scroll"><table class="zq-table"><thead>'
        '<tr><th scope="col">Picture</th><th scope="col">State</th>'
        '<th scope="col">Before ↑</th><th scope="col">After ↑</th>'
        '<th scope="col">Stated first</th><th scope="col">Files</th>'
        "</tr></thead><tbody>{}</tbody></table></div>"
    ).format(lines)


def _batch_links(row: Mapping[str, Any]) -> Markup:
    files, base = row.get("files"), row.get("base", "")
    if not files:
        return Markup("–")
    return Markup(
        '<a href="{}/{}" download>picture</a> · <a href="{}/{}" target="_blank" rel="noopener">report</a>'
    ).format(base, files["picture"], base, files["report"])


def csv_link(content: str, name: str) -> Markup:
    """A table to take along; it is in the link itself, no file lies on the server."""
    data = base64.b64encode(("\ufeff" + content).encode()).decode()
    return Markup(
        '<p class="zq-links"><a class="zq-link" download="{}"'
        ' href="data:text/csv;charset=utf-8;base64,{}">Table (CSV)</a></p>'
    ).format(name, data)


def offers(items: Iterable[Mapping[str, Any]]) -> Markup:
    """Restorers that are not ready here, with the reason."""
    lines = Markup("").join(
        Markup('<li><b>{}</b> {} <span class="zq-soft">{}</span></li>').format(
            item["name"], item["description"], item["reason"]
        )
        for item in items
        if not item["is_ready"]
    )
    return Markup("<ul>{}</ul>").format(lines) if lines else Markup("<p>Every restorer is ready.</p>")


def load_maps(path: Path) -> dict[str, Any]:
    """The maps that a job wrote; none where it did not."""
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _figure(value: float | None, places: int = 3) -> str:
    return "–" if value is None else f"{value:.{places}f}"


def _bound(value: float | None) -> str:
    return "…" if value is None else f"{value:g}"
