//! Changes as data: which bytes of a text become what, and how a key is set, added or taken away without
//! touching anything beside it.

use std::ops::Range;

use crate::kustomization::scalar;
use crate::kustomization::site::{Field, Site};
use crate::kustomization::tree::{Kind, Node, Style};

/// These bytes become this text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    pub at: Range<usize>,
    pub with: String,
}

/// Carries the edits out; they are in order and apart.
pub fn apply(text: &str, edits: &[Edit]) -> String {
    let mut result = String::with_capacity(text.len() + 128);
    let mut from = 0;
    for edit in edits {
        result.push_str(&text[from..edit.at.start]);
        result.push_str(&edit.with);
        from = edit.at.end;
    }
    result.push_str(&text[from..]);
    result
}

/// Whether `after` is `before` with nothing changed but these spans; looks at the two texts alone.
pub fn confined(before: &str, after: &str, spans: &[Range<usize>]) -> bool {
    let (mut rest, mut from) = (after, 0);
    for (index, span) in spans.iter().enumerate() {
        let Some(kept) = before.get(from..span.start) else { return false };
        let found = if index == 0 { rest.starts_with(kept).then_some(0) } else { rest.find(kept) };
        let Some(at) = found else { return false };
        rest = &rest[at + kept.len()..];
        from = span.end;
    }
    before.get(from..).is_some_and(|tail| if spans.is_empty() { rest == tail } else { rest.ends_with(tail) })
}

/// Puts `value` where the field's value is. `None` if it stands there already; an error if there is no colon.
pub fn set(text: &str, (key, value): &Field, with: &str) -> Result<Option<Edit>, &'static str> {
    let style = match &value.kind {
        Kind::Scalar { style, .. } => *style,
        _ => return Err("its value is not a single one"),
    };
    if value.text() == Some(with) && (style != Style::Plain || scalar::is_text_unquoted(with)) {
        return Ok(None);
    }
    let with = scalar::render(with, style);
    if !value.span.is_empty() {
        return Ok(Some(Edit { at: value.span.clone(), with }));
    }
    let at = colon(text, key).ok_or("its key has no colon")?;
    Ok(Some(Edit { at: at..at, with: format!(" {with}") }))
}

/// Adds `name: value` behind the first of the `neighbours` that the entry has.
pub fn add(text: &str, site: &Site<'_>, neighbours: &[&str], name: &str, value: &str) -> Option<Edit> {
    let neighbour = neighbours.iter().find_map(|name| site.field(name))?;
    let style = match neighbour.0.kind {
        Kind::Scalar { style, .. } => style,
        _ => Style::Plain,
    };
    let name = match style {
        Style::Plain => name.to_owned(),
        quoted => scalar::render(name, quoted),
    };
    let end = end(text, neighbour);
    if site.flow {
        let colon =
            if text.get(neighbour.0.span.end..neighbour.1.span.start) == Some(":") { ":" } else { ": " };
        let value = scalar::render(value, style);
        return Some(Edit {
            at: end..end,
            with: format!(",{}{name}{colon}{value}", gap(text, site, neighbour)),
        });
    }
    let line = format!("{}{name}: {}", indent(text, &neighbour.0), scalar::render(value, Style::Plain));
    let (break_at, next) = line_end(text, end);
    // At the end of a text without a last line break, the new line does without one as well.
    let with = if break_at == next {
        format!("{}{line}", line_break(text))
    } else {
        format!("{line}{}", &text[break_at..next])
    };
    Some(Edit { at: next..next, with })
}

/// Takes a field away, with its line if it has one to itself; comments stay.
pub fn remove(text: &str, site: &Site<'_>, name: &str) -> Option<Edit> {
    let index = site.fields.iter().position(|(key, _)| key.text() == Some(name))?;
    let field = &site.fields[index];
    let (start, end) = (field.0.span.start, end(text, field));
    let cut = |at: Range<usize>| Some(Edit { at, with: String::new() });
    if site.flow {
        return cut(flow_cut(text, site, index, start, end));
    }
    let line_start = line_start(text, start);
    let after = end + blanks(&text[end..]);
    let comment = text[after..].starts_with('#');
    if text[line_start..start].trim().is_empty() {
        // The key begins its line.
        return cut(if comment { start..after } else { line_start..line_end(text, end).1 });
    }
    // The key stands behind the dash: the next one takes its place, unless comments stand between them.
    let next = site.fields.get(index + 1)?.0.span.start;
    if text[end..next].trim().is_empty() {
        return cut(start..next);
    }
    cut(if comment { start..after } else { text[..start].trim_end_matches([' ', '\t']).len()..after })
}

/// In `{a: b, NAME: value, c: d}`: the field and one of its commas. A comma behind the last field is good YAML,
/// so where comments stand in between, the one before may stay.
fn flow_cut(text: &str, site: &Site<'_>, index: usize, start: usize, end: usize) -> Range<usize> {
    let space = text[end..].len() - text[end..].trim_start().len();
    if let Some(before) = index.checked_sub(1).and_then(|index| site.fields.get(index)) {
        let before = self::end(text, before);
        if text[before..start].chars().all(|c| c == ',' || c.is_whitespace()) {
            return before..end;
        }
    }
    let comma = text[end + space..].starts_with(',');
    let after = if comma { end + space + 1 } else { end };
    let (line_start, (break_at, next)) = (line_start(text, start), line_end(text, after));
    if text[line_start..start].trim().is_empty() && text[after..break_at].trim().is_empty() {
        return line_start..next;
    }
    start..after + blanks(&text[after..])
}

/// Where a field ends: behind its value, or behind the colon if it has none.
pub fn end(text: &str, (key, value): &Field) -> usize {
    if value.span.is_empty() { colon(text, key).unwrap_or(key.span.end) } else { value.span.end }
}

/// The place behind a key's colon.
fn colon(text: &str, key: &Node) -> Option<usize> {
    let rest = &text[key.span.end..];
    let blanks = blanks(rest);
    rest[blanks..].starts_with(':').then_some(key.span.end + blanks + 1)
}

fn blanks(text: &str) -> usize {
    text.len() - text.trim_start_matches([' ', '\t']).len()
}

/// What stands before a flow mapping's field: the spaces, or the line break and the indentation.
fn gap<'t>(text: &'t str, site: &Site<'_>, (key, _): &Field) -> &'t str {
    let before = &text[..key.span.start];
    let gap = &before[before.trim_end().len()..];
    let first = site.fields.first().is_some_and(|(first, _)| first.span == key.span);
    if first && gap.is_empty() { " " } else { gap }
}

/// The indentation of a block mapping's key; a dash before it counts as a space.
fn indent(text: &str, key: &Node) -> String {
    let before = &text[line_start(text, key.span.start)..key.span.start];
    let before = before.trim_start_matches('\u{feff}');
    if before.trim().is_empty() { before.to_owned() } else { " ".repeat(before.chars().count()) }
}

pub fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind(['\n', '\r']).map_or(0, |found| found + 1)
}

/// Where the line's break begins, and where the next line does.
pub fn line_end(text: &str, at: usize) -> (usize, usize) {
    let Some(found) = text[at..].find(['\n', '\r']).map(|found| found + at) else {
        return (text.len(), text.len());
    };
    let width = if text[found..].starts_with("\r\n") { 2 } else { 1 };
    (found, found + width)
}

fn line_break(text: &str) -> &str {
    match line_end(text, 0) {
        (at, next) if at < next => &text[at..next],
        _ => "\n",
    }
}
