//! The rules for names, label keys and label values, in apimachinery's words.
//!
//! Each function gives the complaints about one text; none means it is well formed. Source: RFC 1123, RFC 1035 and
//! "Object Names and IDs" / "Labels and Selectors" of the Kubernetes documentation.

const DNS1123_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS1123_SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const DNS1035_LABEL: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED_NAME: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";

/// `web-1`: what namespaces and services are called. At most 63 bytes.
pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut wrong = too_long(text, 63, "");
    if text.contains('.') {
        wrong.push("must not contain dots".into());
    } else if !is_dns_label(text) {
        let says = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
        wrong.push(regex_says(says, DNS1123_LABEL, &["my-name", "123-abc"]));
    }
    wrong
}

/// `web.example.com`: what most objects are called. At most 253 bytes.
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    let mut wrong = too_long(text, 253, "");
    if !text.split('.').all(is_dns_label) {
        let says = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
        wrong.push(regex_says(says, DNS1123_SUBDOMAIN, &["example.com"]));
    }
    wrong
}

/// Like [`dns1123_label`], but a letter first.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut wrong = too_long(text, 63, "");
    if !is_dns_label(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        let says = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
        wrong.push(regex_says(says, DNS1035_LABEL, &["my-name", "abc-123"]));
    }
    wrong
}

/// `name` or `prefix.example.com/name`: keys of labels and annotations, names of taints and resources.
pub fn qualified_name(text: &str) -> Vec<String> {
    let says = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    let examples = &["MyName", "my.name", "123-abc"];
    let mut wrong = Vec::new();
    let mut parts = text.split('/');
    let name = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, _) => name,
        (Some(""), Some(name), None) => {
            wrong.push("prefix part must be non-empty".into());
            name
        }
        (Some(prefix), Some(name), None) => {
            wrong.extend(
                dns1123_subdomain(prefix)
                    .into_iter()
                    .map(|w| format!("prefix part {w}")),
            );
            name
        }
        _ => {
            let whole = regex_says(&format!("a valid label key {says}"), QUALIFIED_NAME, examples);
            return vec![format!(
                "{whole} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".into());
    } else if name.len() > 63 {
        wrong.extend(too_long(name, 63, "name part "));
    }
    if !is_label_word(name) {
        wrong.push(regex_says(&format!("name part {says}"), QUALIFIED_NAME, examples));
    }
    wrong
}

/// Empty, or at most 63 bytes of a restricted alphabet.
pub fn label_value(text: &str) -> Vec<String> {
    let mut wrong = too_long(text, 63, "");
    if !text.is_empty() && !is_label_word(text) {
        let says = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
        wrong.push(regex_says(says, LABEL_VALUE, &["MyValue", "my_value", "12345"]));
    }
    wrong
}

fn is_dns_label(text: &str) -> bool {
    let edge = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(edge) && bytes.last().is_some_and(edge) && bytes.iter().all(|b| edge(b) || *b == b'-')
}

fn is_label_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Why a condition came about (`metav1.Condition.reason`).
pub fn condition_reason(text: &str) -> Vec<String> {
    const REGEX: &str = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?";
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b',' | b':');
    let fits = bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.iter().all(inner)
        && bytes.last().is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    if fits {
        return Vec::new();
    }
    let says = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'";
    let examples = &["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"];
    vec![regex_says(says, REGEX, examples)]
}

fn too_long(text: &str, limit: usize, part: &str) -> Vec<String> {
    if text.len() > limit {
        vec![format!("{part}must be no more than {limit} bytes")]
    } else {
        Vec::new()
    }
}

fn regex_says(says: &str, regex: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!(
        "{says} (e.g. {}regex used for validation is '{regex}')",
        examples.join(" or ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_upstream_judges_them() {
        for good in ["a", "a-1", "0"] {
            assert!(dns1123_label(good).is_empty(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", &"a".repeat(64)] {
            assert!(!dns1123_label(bad).is_empty(), "{bad}");
        }
        for good in ["a", "app.kubernetes.io/name", "A_b.c"] {
            assert!(qualified_name(good).is_empty(), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "UPPER.io/a", "a b", &"a".repeat(64)] {
            assert!(!qualified_name(bad).is_empty(), "{bad}");
        }
        assert!(label_value("").is_empty());
        assert_eq!(
            label_value("a b"),
            [
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            ]
        );
        assert!(!dns1035_label("1a").is_empty());
        assert!(dns1123_subdomain("a.b-c.d").is_empty() && !dns1123_subdomain("a..b").is_empty());
    }
}
