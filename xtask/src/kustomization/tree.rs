//! A YAML document as nodes that know where in the text they stand. Reading only: nothing here knows what a
//! kustomization is, and nothing is resolved (aliases, merge keys and tags stay what the text says).

use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle};

/// One value in the text.
#[derive(Debug)]
pub struct Node {
    pub kind: Kind,
    /// Bytes of the value alone: with its quotes, without anchor and tag. Empty where a value is left out.
    pub span: Range<usize>,
    /// Counted from 1.
    pub line: usize,
    /// It has an `&anchor`.
    pub anchored: bool,
    /// It has an explicit tag other than `!!str`.
    pub tagged: bool,
}

#[derive(Debug)]
pub enum Kind {
    Scalar { text: String, style: Style },
    Sequence(Vec<Node>),
    Mapping { flow: bool, entries: Vec<(Node, Node)> },
    Alias,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    Single,
    Double,
    /// `|` or `>`.
    Block,
}

/// A text that holds at most one document.
#[derive(Debug)]
pub struct Tree {
    /// `None` if the text holds nothing but comments.
    pub root: Option<Node>,
    /// In the text's order.
    pub comments: Vec<Comment>,
}

#[derive(Debug)]
pub struct Comment {
    /// The byte of its `#`.
    pub start: usize,
    /// What stands behind the `#`.
    pub text: String,
}

/// What keeps a text from being a tree, and the line.
#[derive(Debug, PartialEq, Eq)]
pub struct Trouble {
    pub line: usize,
    pub message: String,
}

/// Reads one document. The parser bounds the nesting (255 levels), so that no text overflows the stack.
pub fn parse(text: &str) -> Result<Tree, Trouble> {
    one_kind_of_line(text)?;
    let mut tree = Tree { root: None, comments: Vec::new() };
    // The collections that are open, outermost first; a mapping's keys and values alternate.
    let mut open: Vec<(Node, Vec<Node>)> = Vec::new();
    let mut documents = 0;
    let options = granit_parser::options! { max_buffered_comment_events: usize::MAX };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| Trouble {
            line: error.marker().line(),
            message: format!("{}, in column {}", error.info(), error.marker().col() + 1),
        })?;
        let done = match event {
            Event::Comment(comment, _) => {
                let start = bytes(&span)?.start;
                tree.comments.push(Comment { start, text: comment.into_owned() });
                continue;
            }
            Event::DocumentStart(..) => {
                documents += 1;
                if documents > 1 {
                    return Err(Trouble {
                        line: span.start.line(),
                        message: "a second YAML document starts here, which kustomize ignores".into(),
                    });
                }
                continue;
            }
            Event::SequenceStart(_, anchor, tag) => {
                open.push((node(&span, Kind::Sequence(Vec::new()), anchor, tag.as_deref())?, Vec::new()));
                continue;
            }
            Event::MappingStart(style, anchor, tag) => {
                let kind = Kind::Mapping { flow: style == StructureStyle::Flow, entries: Vec::new() };
                open.push((node(&span, kind, anchor, tag.as_deref())?, Vec::new()));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some((node, children)) => close(node, children, &span),
                None => continue,
            },
            Event::Scalar(text, style, anchor, tag) => {
                let kind = Kind::Scalar { text: text.into_owned(), style: style.into() };
                node(&span, kind, anchor, tag.as_deref())?
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => node(&span, Kind::Alias, 0, None)?,
            _ => continue,
        };
        match open.last_mut() {
            Some((_, children)) => children.push(done),
            None => tree.root = Some(done),
        }
    }
    Ok(tree)
}

/// YAML 1.1, which kustomize reads, ends a line at these characters, and a comment with it; YAML 1.2 does not.
fn one_kind_of_line(text: &str) -> Result<(), Trouble> {
    let Some((at, found)) =
        text.char_indices().find(|(_, c)| matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}'))
    else {
        return Ok(());
    };
    let line = text[..at].matches('\n').count() + 1;
    Err(Trouble {
        line,
        message: format!("U+{:04X} ends a line to some YAML parsers only", u32::from(found)),
    })
}

fn node(span: &Span, kind: Kind, anchor: usize, tag: Option<&granit_parser::Tag>) -> Result<Node, Trouble> {
    let tagged = tag.is_some_and(|tag| !tag.is_yaml_core_schema_tag("str"));
    Ok(Node { kind, span: bytes(span)?, line: span.start.line(), anchored: anchor != 0, tagged })
}

fn bytes(span: &Span) -> Result<Range<usize>, Trouble> {
    span.byte_range().ok_or_else(|| Trouble {
        line: span.start.line(),
        message: "the parser lost its place in the text".into(),
    })
}

fn close(mut node: Node, children: Vec<Node>, end: &Span) -> Node {
    if let Some(range) = end.byte_range() {
        node.span.end = range.end.max(node.span.start);
    }
    match &mut node.kind {
        Kind::Mapping { entries, .. } => {
            let mut children = children.into_iter();
            while let (Some(key), Some(value)) = (children.next(), children.next()) {
                entries.push((key, value));
            }
        }
        Kind::Sequence(items) => *items = children,
        Kind::Scalar { .. } | Kind::Alias => {}
    }
    node
}

impl From<ScalarStyle> for Style {
    fn from(style: ScalarStyle) -> Self {
        match style {
            ScalarStyle::Plain => Self::Plain,
            ScalarStyle::SingleQuoted => Self::Single,
            ScalarStyle::DoubleQuoted => Self::Double,
            ScalarStyle::Literal | ScalarStyle::Folded => Self::Block,
        }
    }
}

impl Tree {
    /// The text of every comment.
    pub fn comments(&self) -> impl Iterator<Item = &str> {
        self.comments.iter().map(|comment| comment.text.as_str())
    }
}

impl Node {
    /// The value as text, for a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Whether nothing, `~` or `null` stands here.
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, style: Style::Plain }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalars<'t>(text: &'t str, node: &Node, found: &mut Vec<&'t str>) {
        match &node.kind {
            Kind::Scalar { .. } | Kind::Alias => found.push(&text[node.span.clone()]),
            Kind::Sequence(items) => items.iter().for_each(|item| scalars(text, item, found)),
            Kind::Mapping { entries, .. } => {
                for (key, value) in entries {
                    scalars(text, key, found);
                    scalars(text, value, found);
                }
            }
        }
    }

    #[test]
    fn spans_are_bytes_and_hold_the_quotes() {
        let text = "\u{feff}# ü\r\nä: 'é' # c\r\nb: {c: \"x\", d: y , e: }\r\nf:\r\n- plain text   \r\n- &a !!str z\r\n- *a\r\n";
        let tree = parse(text).unwrap();
        let mut found = Vec::new();
        scalars(text, tree.root.as_ref().unwrap(), &mut found);
        assert_eq!(found, ["ä", "'é'", "b", "c", "\"x\"", "d", "y", "e", "", "f", "plain text", "z", "*a"]);
        assert_eq!(tree.comments().collect::<Vec<_>>(), [" ü", " c"]);
        assert!(
            tree.comments
                .iter()
                .all(|comment| text[comment.start..].starts_with(&format!("#{}", comment.text)))
        );
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_crash() {
        for open in ["[", "{a: ", "- ", "? "] {
            assert!(parse(&open.repeat(100_000)).is_err(), "{open}");
        }
    }

    #[test]
    fn a_second_document_is_named_by_its_line() {
        assert_eq!(parse("a: 1\n---\nb: 2\n").unwrap_err().line, 2);
        assert!(parse("---\na: 1\n...\n").is_ok());
        assert!(parse("# nothing\n").unwrap().root.is_none());
    }
}
