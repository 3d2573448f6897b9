//! Regular expressions as Go reads them (RE2), for patterns of schemas and of expressions.
//!
//! The `regex` crate understands nearly the same. Two things differ: `\d`, `\w`, `\s` and `\b` mean ASCII to Go, and within
//! brackets only Go takes `[`, `&&`, `--` and `~~` for what they look like.

use regex::Regex;

/// # Errors
/// Go's complaint: `error parsing regexp: missing closing ]: …`.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    let translated = translate(pattern)?;
    Regex::new(&translated).map_err(|error| complaint(pattern, &error.to_string()))
}

/// Checks without keeping what a compiled one costs.
///
/// # Errors
/// As [`compile`].
pub fn check(pattern: &str) -> Result<(), String> {
    compile(pattern).map(drop)
}

fn failed(what: &str, part: &str) -> String {
    format!("error parsing regexp: {what}: `{part}`")
}

/// The crate's words turned into Go's.
fn complaint(pattern: &str, error: &str) -> String {
    let says = [
        ("unclosed character class", "missing closing ]"),
        ("unclosed group", "missing closing )"),
        ("unopened group", "unexpected )"),
        (
            "repetition operator missing expression",
            "missing argument to repetition operator",
        ),
        ("invalid character class range", "invalid character class range"),
        ("invalid repetition count range", "invalid repeat count"),
        ("repetition quantifier", "missing argument to repetition operator"),
        ("look-around", "invalid or unsupported Perl syntax"),
        ("backreferences", "invalid escape sequence"),
        ("unrecognized escape sequence", "invalid escape sequence"),
        ("incomplete escape sequence", "trailing backslash at end of expression"),
        ("Unicode property not found", "invalid character class range"),
        ("size limit", "expression too large"),
    ];
    let found = says.iter().find(|(theirs, _)| error.contains(theirs));
    failed(
        found.map_or("invalid or unsupported Perl syntax", |(_, go)| go),
        pattern,
    )
}

fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len());
    let mut letters = pattern.chars().peekable();
    let mut class = false;
    let mut first_in_class = false;
    while let Some(letter) = letters.next() {
        let first = std::mem::take(&mut first_in_class);
        match letter {
            '\\' => {
                let Some(next) = letters.next() else {
                    return Err("error parsing regexp: trailing backslash at end of expression: ``".into());
                };
                match (next, class) {
                    ('d', true) => out.push_str("0-9"),
                    ('w', true) => out.push_str("0-9A-Za-z_"),
                    ('s', true) => out.push_str("\\t\\n\\f\\r "),
                    ('d', false) => out.push_str("[0-9]"),
                    ('w', false) => out.push_str("[0-9A-Za-z_]"),
                    ('s', false) => out.push_str("[\\t\\n\\f\\r ]"),
                    ('D', _) => out.push_str("[^0-9]"),
                    ('W', _) => out.push_str("[^0-9A-Za-z_]"),
                    ('S', _) => out.push_str("[^\\t\\n\\f\\r ]"),
                    ('b', false) => out.push_str("(?-u:\\b)"),
                    ('B', false) => out.push_str("(?-u:\\B)"),
                    // Go's quoted run.
                    ('Q', _) => {
                        let mut quoted = String::new();
                        while let Some(letter) = letters.next() {
                            if letter == '\\' && letters.peek() == Some(&'E') {
                                letters.next();
                                break;
                            }
                            quoted.push(letter);
                        }
                        out.push_str(&regex::escape(&quoted));
                    }
                    (next, _) if next.is_ascii_punctuation() && !matches!(next, '<' | '>') => {
                        out.push('\\');
                        out.push(next);
                    }
                    ('<' | '>', _) => out.push(next),
                    ('p' | 'P' | 'x', _) if letters.peek() == Some(&'{') => {
                        out.push('\\');
                        out.push(next);
                        for letter in letters.by_ref() {
                            out.push(letter);
                            if letter == '}' {
                                break;
                            }
                        }
                    }
                    (next, _) => {
                        out.push('\\');
                        out.push(next);
                    }
                }
            }
            '[' if !class => {
                class = true;
                out.push('[');
                if letters.peek() == Some(&'^') {
                    letters.next();
                    out.push('^');
                }
                first_in_class = true;
            }
            '[' if letters.peek() == Some(&':') => {
                // `[:alpha:]` is the same to both.
                out.push('[');
                for letter in letters.by_ref() {
                    out.push(letter);
                    if letter == ']' {
                        break;
                    }
                }
            }
            '[' => out.push_str("\\["),
            ']' if class && first => out.push_str("\\]"),
            ']' if class => {
                class = false;
                out.push(']');
            }
            '&' | '~' if class => {
                out.push('\\');
                out.push(letter);
            }
            '-' if class && letters.peek() == Some(&'-') => out.push_str("\\-"),
            // A brace that begins no count is itself to Go.
            '{' if !class => {
                let rest: String = letters.clone().take_while(|c| *c != '}').collect();
                let counts = rest.split(',').collect::<Vec<_>>();
                let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                let closed = letters.clone().any(|c| c == '}');
                let count = closed
                    && match counts.as_slice() {
                        [one] => number(one),
                        [from, to] => number(from) && (to.is_empty() || number(to)),
                        _ => false,
                    };
                if count {
                    let over = counts.iter().any(|n| n.parse::<u64>().is_ok_and(|n| n > 1000));
                    if over {
                        return Err(failed("invalid repeat count", &format!("{{{rest}}}")));
                    }
                    out.push('{');
                } else {
                    out.push_str("\\{");
                }
            }
            other => out.push(other),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_what_go_means() {
        for (pattern, text, matches) in [
            (r"^\d+$", "12", true),
            (r"^\d+$", "١٢", false),
            (r"^[\w.-]+$", "a_b.c-d", true),
            (r"^[^\d]+$", "abc", true),
            (r"^[[a]+$", "[a", true),
            (r"^[]a]+$", "]a", true),
            (r"^[a&&b]+$", "&", true),
            (r"^a{2,3}$", "aa", true),
            (r"^{a}$", "{a}", true),
            (r"\ba\b", "a b", true),
            (r"\Qa.b\E$", "a.b", true),
            (r"\Qa.b\E$", "axb", false),
            (r"^[[:alpha:]]+$", "abc", true),
            (r"^[+\-/]$", "-", true),
            (r"^\p{Lu}$", "Ä", true),
        ] {
            assert_eq!(compile(pattern).unwrap().is_match(text), matches, "{pattern} on {text}");
        }
        for (pattern, says) in [
            ("[abc", "error parsing regexp: missing closing ]: `[abc`"),
            ("(abc", "error parsing regexp: missing closing ): `(abc`"),
            (
                "(?=a)",
                "error parsing regexp: invalid or unsupported Perl syntax: `(?=a)`",
            ),
            ("a{1001}", "error parsing regexp: invalid repeat count: `{1001}`"),
        ] {
            assert_eq!(compile(pattern).unwrap_err(), says);
        }
    }
}
