//! Times as Kubernetes writes them.
//!
//! Nothing here asks the clock: whoever needs the time is given it.

use jiff::Timestamp;

use crate::Failure;

/// `metav1.Time`: whole seconds, `2026-01-02T03:04:05Z`. Texts of this form sort as their times do.
pub fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `metav1.MicroTime`: always six places, `2026-01-02T03:04:05.000006Z`.
pub fn micros(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Reads either form, any fraction and any offset (RFC 3339).
///
/// # Errors
/// [`Failure::BadRequest`] with the text.
pub fn parse(text: &str) -> Result<Timestamp, Failure> {
    text.parse()
        .map_err(|_| Failure::BadRequest(format!("{text:?} is not a time; write it like 2026-01-02T03:04:05Z")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_kubernetes_writes_them() {
        let at = parse("2026-01-02T03:04:05.123456789+01:00").unwrap();
        assert_eq!(seconds(at), "2026-01-02T02:04:05Z");
        assert_eq!(micros(at), "2026-01-02T02:04:05.123456Z");
        assert_eq!(
            micros(parse("2026-01-02T03:04:05Z").unwrap()),
            "2026-01-02T03:04:05.000000Z"
        );
        assert!(parse("yesterday").is_err());
    }
}
