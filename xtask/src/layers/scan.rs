//! Finds, in the source of a crate that must be pure, the paths that reach outside: clocks, sockets,
//! disks, the environment, random sources, logs. Works on tokens, so that comments and strings may
//! say what they like; it knows `use` groups and renamed imports, not macros' insides.

/// A forbidden path and where it stands.
#[derive(Debug, PartialEq, Eq)]
pub struct Impurity {
    /// Line of the source, from 1.
    pub line: usize,
    /// The path, and why it is forbidden.
    pub text: String,
}

/// Paths that reach outside, matched from their first word on. `core::time` holds plain durations
/// and is allowed; `std::time` is not, because its clocks come with it.
const FORBIDDEN: &[(&str, &str)] = &[
    ("std::time", "time comes in as an argument"),
    ("std::net", "messages come in and go out as values"),
    ("std::fs", "what must be kept goes out as a value"),
    ("std::io::stdin", "bytes come in and go out as values"),
    ("std::io::stdout", "bytes come in and go out as values"),
    ("std::io::stderr", "bytes come in and go out as values"),
    ("std::env", "configuration comes in as an argument"),
    ("std::process", "a pure crate starts and ends nothing"),
    ("std::thread", "the caller decides what runs in parallel"),
    ("std::random", "randomness comes in as an argument"),
    (
        "std::hash::RandomState",
        "its order differs from run to run",
    ),
    ("rand", "randomness comes in as an argument"),
    ("rand_core::OsRng", "randomness comes in as an argument"),
    ("getrandom", "randomness comes in as an argument"),
    ("log", "events of note go out as values"),
    ("tracing", "events of note go out as values"),
    ("tokio", "the caller decides what runs when"),
];

/// Macros that print.
const FORBIDDEN_MACROS: &[&str] = &["print", "println", "eprint", "eprintln", "dbg"];

/// Every forbidden path and macro of a source file, except inside `#[cfg(test)]` items.
pub fn impurities(source: &str) -> Vec<Impurity> {
    let tokens = without_tests(tokens(source));
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let is_macro = tokens.get(index + 1).is_some_and(|next| next.text == "!");
        if is_macro && FORBIDDEN_MACROS.contains(&token.text.as_str()) {
            found.push(Impurity {
                line: token.line,
                text: format!("`{}!`: events of note go out as values", token.text),
            });
        }
        if is_word(&token.text) && begins_path(&tokens, index) {
            for (line, path) in paths_from(&tokens, index) {
                if let Some((_, why)) = FORBIDDEN.iter().find(|(root, _)| starts_with(&path, root))
                {
                    found.push(Impurity {
                        line,
                        text: format!("`{path}`: {why}"),
                    });
                }
            }
        }
    }
    found
}

/// Whether the word at `index` is the first of its path: not after `a::` nor `value.`.
fn begins_path(tokens: &[Token], index: usize) -> bool {
    let before = |back: usize| {
        index
            .checked_sub(back)
            .map_or("", |i| tokens[i].text.as_str())
    };
    match before(1) {
        "." => false,
        "::" => !is_word(before(2)) && before(2) != ">",
        _ => true,
    }
}

fn starts_with(path: &str, root: &str) -> bool {
    path.strip_prefix(root)
        .is_some_and(|rest| rest.starts_with("::"))
        || (path == root && root.contains("::"))
}

struct Token {
    line: usize,
    text: String,
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The paths that begin at a word: one for `a::b::c`, several for the group `a::{b, c::d}`.
fn paths_from(tokens: &[Token], start: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    expand(tokens, start, String::new(), &mut found);
    found
}

/// Follows the path at `index` with what came before it; returns the index after it.
fn expand(
    tokens: &[Token],
    start: usize,
    before: String,
    found: &mut Vec<(usize, String)>,
) -> usize {
    let line = tokens[start].line;
    let mut path = before + &tokens[start].text;
    let mut index = start + 1;
    while tokens.get(index).is_some_and(|token| token.text == "::") {
        path.push_str("::");
        match tokens.get(index + 1) {
            Some(next) if is_word(&next.text) || next.text == "*" => {
                path.push_str(&next.text);
                index += 2;
            }
            Some(next) if next.text == "{" => return expand_group(tokens, index + 2, &path, found),
            _ => break,
        }
    }
    found.push((line, path));
    index
}

fn expand_group(
    tokens: &[Token],
    start: usize,
    before: &str,
    found: &mut Vec<(usize, String)>,
) -> usize {
    let mut index = start;
    while let Some(token) = tokens.get(index) {
        if token.text == "}" {
            return index + 1;
        }
        index = if is_word(&token.text) && token.text != "as" {
            expand(tokens, index, before.to_owned(), found)
        } else {
            index + 1
        };
    }
    index
}

/// Drops what follows `#[cfg(test)]` up to the end of its item.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::with_capacity(tokens.len());
    let mut rest = tokens.into_iter().peekable();
    let mut window: Vec<Token> = Vec::new();
    while let Some(token) = rest.next() {
        window.push(token);
        let matched = window.len();
        if window[matched - 1].text != MARK[matched - 1] {
            kept.append(&mut window);
        } else if matched == MARK.len() {
            window.clear();
            skip_item(&mut rest);
        }
    }
    kept.append(&mut window);
    kept
}

/// Skips to the `;` or the closing brace that ends an item.
fn skip_item(rest: &mut impl Iterator<Item = Token>) {
    let mut depth = 0usize;
    for token in rest {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" if depth <= 1 => return,
            "}" => depth -= 1,
            ";" if depth == 0 => return,
            _ => {}
        }
    }
}

/// Words, `::` and single marks of a source; comments, strings and characters are left out.
fn tokens(source: &str) -> Vec<Token> {
    let characters: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut index = 0;
    while index < characters.len() {
        let end = end_of_token(&characters, index);
        let text: String = characters[index..end].iter().collect();
        let first = characters[index];
        let silent = first.is_whitespace()
            || first.is_ascii_digit()
            || text.starts_with("//")
            || text.starts_with("/*")
            || text.contains(['"', '\'']);
        if !silent {
            tokens.push(Token {
                line,
                text: text.clone(),
            });
        }
        line += text.matches('\n').count();
        index = end;
    }
    tokens
}

/// The index after the token at `start`.
fn end_of_token(characters: &[char], start: usize) -> usize {
    let at = |index: usize| characters.get(index).copied().unwrap_or('\0');
    let until = |from: usize, stop: &dyn Fn(usize) -> bool| {
        (from..characters.len())
            .find(|index| stop(*index))
            .unwrap_or(characters.len())
    };
    match (at(start), at(start + 1)) {
        ('/', '/') => until(start, &|i| at(i) == '\n'),
        ('/', '*') => end_of_block_comment(characters, start),
        ('"', _) => end_of_string(characters, start + 1),
        ('b', '"') => end_of_string(characters, start + 2),
        ('r', '"' | '#') | ('b', 'r') if is_raw_string(characters, start) => {
            end_of_raw_string(characters, start)
        }
        ('\'', '\\') => until(start + 3, &|i| at(i) == '\'') + 1,
        ('\'', _) if at(start + 2) == '\'' => start + 3,
        ('\'', _) => until(start + 1, &|i| !is_word_part(at(i))),
        (':', ':') => start + 2,
        (first, _) if is_word_part(first) => until(start, &|i| !is_word_part(at(i))),
        _ => start + 1,
    }
}

fn is_word_part(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn end_of_string(characters: &[char], mut index: usize) -> usize {
    while index < characters.len() && characters[index] != '"' {
        index += if characters[index] == '\\' { 2 } else { 1 };
    }
    (index + 1).min(characters.len())
}

fn end_of_block_comment(characters: &[char], start: usize) -> usize {
    let mut depth = 0usize;
    let mut index = start;
    while index + 1 < characters.len() {
        match (characters[index], characters[index + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') if depth == 1 => return index + 2,
            ('*', '/') => depth -= 1,
            _ => {
                index += 1;
                continue;
            }
        }
        index += 2;
    }
    characters.len()
}

fn is_raw_string(characters: &[char], start: usize) -> bool {
    characters[start..]
        .iter()
        .skip_while(|c| matches!(c, 'b' | 'r'))
        .find(|c| **c != '#')
        .is_some_and(|c| *c == '"')
}

fn end_of_raw_string(characters: &[char], start: usize) -> usize {
    let hashes = characters[start..]
        .iter()
        .skip_while(|c| matches!(c, 'b' | 'r'));
    let hashes = hashes.take_while(|c| **c == '#').count();
    let open = (start..characters.len())
        .find(|i| characters[*i] == '"')
        .unwrap_or(start);
    (open + 1..characters.len())
        .find(|i| {
            characters[*i] == '"'
                && characters[i + 1..]
                    .iter()
                    .take(hashes)
                    .filter(|c| **c == '#')
                    .count()
                    == hashes
        })
        .map_or(characters.len(), |end| end + 1 + hashes)
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod scan_tests;
