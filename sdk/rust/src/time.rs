//! Points in time as the WIT worlds and as Kubernetes write them.

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub i64);

impl Instant {
    /// `2026-01-31T23:59:59Z`, with or without a fraction or an offset (RFC 3339), as `metav1.Time` and `MicroTime` are.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |from: usize, to: usize| -> Option<i64> {
            let digits = text.get(from..to)?;
            digits
                .bytes()
                .all(|b| b.is_ascii_digit())
                .then(|| digits.parse().ok())?
        };
        let separators = [(4, "-"), (7, "-"), (13, ":"), (16, ":")];
        if !separators.iter().all(|(at, is)| text.get(*at..at + 1) == Some(is))
            || !matches!(text.get(10..11)?, "T" | "t")
        {
            return None;
        }
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let seconds = number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        let (mut rest, mut millis) = (text.get(19..)?, 0);
        if let Some(fraction) = rest.strip_prefix('.') {
            let end = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
            let digits: String = fraction[..end].chars().chain("000".chars()).take(3).collect();
            millis = digits.parse().ok()?;
            rest = &fraction[end..];
        }
        let offset = match rest {
            "Z" | "z" => 0,
            _ => {
                let sign = if rest.starts_with('-') { -1 } else { 1 };
                let (hours, minutes) = rest.strip_prefix(['+', '-'])?.split_once(':')?;
                sign * (hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60)
            }
        };
        Some(Self(
            (days_from_civil(year, month, day) * 86_400 + seconds - offset) * 1000 + millis,
        ))
    }

    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1000)))
    }
}

impl std::fmt::Display for Instant {
    /// As `metav1.Time` is written: whole seconds, `Z`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0.div_euclid(1000);
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = civil_from_days(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

// Days of the proleptic Gregorian calendar, counted from March so that the leap day is a year's last; an era is 400 years.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_what_kubernetes_does() {
        for (text, millis, written) in [
            ("1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00Z"),
            ("2000-02-29T12:34:56Z", 951_827_696_000, "2000-02-29T12:34:56Z"),
            ("2026-11-21T10:20:30.123456Z", 1_795_256_430_123, "2026-11-21T10:20:30Z"),
            ("2026-11-21T10:20:30+01:30", 1_795_251_030_000, "2026-11-21T08:50:30Z"),
            ("1969-12-31T23:59:59.5Z", -500, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(Instant::parse(text), Some(Instant(millis)), "{text}");
            assert_eq!(Instant(millis).to_string(), written);
        }
        for text in [
            "",
            "2026-11-21",
            "2026-13-01T00:00:00Z",
            "2026-11-21T10:20:30",
            "x026-11-21T10:20:30Z",
        ] {
            assert_eq!(Instant::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_of_eight_centuries_is_itself() {
        for days in -146_097..146_097 {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }
}
