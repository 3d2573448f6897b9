//! Go's durations: `1h2m3.5s`, read and written as package time does.

const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The text that Go would write.
///
/// # Errors
/// Go's words: `time: invalid duration "x"`.
pub(crate) fn normalize(text: &str) -> Result<String, String> {
    parse(text)
        .map(write)
        .ok_or_else(|| format!("time: invalid duration {text:?}"))
}

/// Nanoseconds; `None` for what is no duration.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (whole, after) = rest.split_at(digits(rest));
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(digits(after)),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(*unit)?)?;
        let fraction = &fraction[..fraction.len().min(18)];
        if !fraction.is_empty() {
            total = total.checked_add(fraction.parse::<i128>().ok()? * unit / 10i128.pow(fraction.len() as u32))?;
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// Nanoseconds as Go writes them.
pub fn write(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".into();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let decimal = |whole: u64, part: u64, places: usize| {
        let text = format!("{whole}.{part:0places$}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanos {
        n if n < 1_000 => format!("{sign}{n}ns"),
        n if n < 1_000_000 => format!("{sign}{}µs", decimal(n / 1_000, n % 1_000, 3)),
        n if n < 1_000_000_000 => format!("{sign}{}ms", decimal(n / 1_000_000, n % 1_000_000, 6)),
        n => {
            let seconds = n / 1_000_000_000;
            let last = decimal(seconds % 60, n % 1_000_000_000, 9);
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => format!("{sign}{last}s"),
                (0, minutes) => format!("{sign}{minutes}m{last}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{last}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::normalize;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (sent, served) in [
            ("0", "0s"),
            ("90s", "1m30s"),
            ("1h", "1h0m0s"),
            ("1.5h", "1h30m0s"),
            ("-1m", "-1m0s"),
            ("1500ms", "1.5s"),
            ("1us", "1µs"),
            ("10ns", "10ns"),
            ("1h2m3.5s", "1h2m3.5s"),
            (".5s", "500ms"),
        ] {
            assert_eq!(normalize(sent).as_deref(), Ok(served), "{sent}");
        }
        for bad in ["", "1", "x", "1d", "1h-2m", "99999999999h"] {
            assert_eq!(normalize(bad), Err(format!("time: invalid duration {bad:?}")), "{bad}");
        }
    }
}
