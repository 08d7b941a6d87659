//! The list of mutations, and where each one's text lies in a source. Nothing here runs anything.

use anyhow::{Context, Result, bail, ensure};

/// A range of bytes.
type Span = std::ops::Range<usize>;

/// One wrong version of a piece of source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    pub name: String,
    /// Below `crates/shadowgraph/src`.
    pub file: String,
    /// A text that contains `from`, where `from` alone is not unique.
    within: Option<String>,
    from: String,
    pub to: String,
}

/// The catalogue that is checked in.
pub fn catalogue() -> Result<Vec<Mutation>> {
    parse(include_str!("catalogue.txt"))
}

fn parse(text: &str) -> Result<Vec<Mutation>> {
    let mut mutations: Vec<Mutation> = Vec::new();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for paragraph in lines.split(|line| line.trim().is_empty()) {
        if paragraph.is_empty() {
            continue;
        }
        let field = |key: &str| {
            let rest = paragraph
                .iter()
                .copied()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
            rest.map(|text| text.trim().to_owned())
        };
        let needed = |key: &str| {
            field(key).with_context(|| format!("a mutant without `{key}`: {paragraph:?}"))
        };
        let mutation = Mutation {
            name: needed("mutant")?,
            file: needed("file")?,
            within: field("in"),
            from: needed("from")?,
            to: needed("to")?,
        };
        ensure!(
            mutations.iter().all(|other| other.name != mutation.name),
            "two mutants are called {}",
            mutation.name
        );
        mutations.push(mutation);
    }
    Ok(mutations)
}

impl Mutation {
    /// The bytes of `source` that are replaced.
    ///
    /// # Errors
    /// The text is gone, or stands there twice: the catalogue must follow the source.
    pub fn span(&self, source: &str) -> Result<Span> {
        let found = || {
            let Some(within) = &self.within else {
                return find(source, &self.from);
            };
            let outer = find(source, within)?;
            let inner = find(&source[outer.clone()], &self.from)?;
            Ok(outer.start + inner.start..outer.start + inner.end)
        };
        found().with_context(|| format!("mutant {}, in {}", self.name, self.file))
    }
}

/// The one place of `text` in `source`, spaces and line ends aside.
fn find(source: &str, text: &str) -> Result<Span> {
    let solid = |(_, character): &(usize, char)| !character.is_whitespace();
    let haystack: Vec<(usize, char)> = source.char_indices().filter(solid).collect();
    let needle: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    ensure!(!needle.is_empty(), "nothing to look for");
    let here = |window: &[(usize, char)]| window.iter().map(|(_, c)| c).eq(&needle);
    let mut hits = haystack.windows(needle.len()).filter(|window| here(window));
    let Some(hit) = hits.next() else {
        bail!("the source no longer says `{text}`: name what replaced it, or drop the mutant");
    };
    ensure!(
        hits.next().is_none(),
        "the source says `{text}` twice: name what stands around the right one with `in`"
    );
    let (last, character) = hit[hit.len() - 1];
    Ok(hit[0].0..last + character.len_utf8())
}

/// The source with a switch in place of every mutated text: what runs is chosen by number when it runs, so that one build
/// serves all mutants. Numbers count from 1; 0 is the source as it is.
pub fn with_switches(source: &str, mutations: &[(u32, &Mutation)]) -> Result<String> {
    let mut places: Vec<(Span, Vec<(u32, &Mutation)>)> = Vec::new();
    for (number, mutation) in mutations {
        let span = mutation.span(source)?;
        match places.iter_mut().find(|(place, _)| *place == span) {
            Some((_, at)) => at.push((*number, mutation)),
            None => places.push((span, vec![(*number, mutation)])),
        }
    }
    places.sort_by_key(|(span, _)| span.start);
    let mut out = String::new();
    let mut written = 0;
    for (span, at) in places {
        ensure!(
            span.start >= written,
            "mutant {} overlaps another",
            at[0].1.name
        );
        out.push_str(&source[written..span.start]);
        out.push_str(&switch(&source[span.clone()], &at));
        written = span.end;
    }
    out.push_str(&source[written..]);
    Ok(out)
}

/// A match over the number in place of an expression, or of a statement with its semicolon.
fn switch(original: &str, mutations: &[(u32, &Mutation)]) -> String {
    let mut arms = String::new();
    for (number, mutation) in mutations {
        arms.push_str(&format!(" {number} => {{ {} }}", mutation.to));
    }
    let end = if original.ends_with(';') { ";" } else { "" };
    format!("(match crate::mutation::active() {{{arms} _ => {{ {original} }} }}){end}")
}

#[cfg(test)]
#[path = "catalogue_tests.rs"]
mod catalogue_tests;
