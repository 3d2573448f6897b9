//! Schedules in cron's five fields, and the names for common ones. Only whether one can be read is asked here; the CronJob
//! controller finds the times.

/// The fields with their least and greatest numbers, and names for the numbers from the least on.
const FIELDS: [(i64, i64, &[&str]); 5] = [
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (
        1,
        12,
        &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    ),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

const NAMED: [&str; 7] = [
    "@yearly",
    "@annually",
    "@monthly",
    "@weekly",
    "@daily",
    "@midnight",
    "@hourly",
];

/// # Errors
/// What is wrong with the schedule, in the words of the parser that Kubernetes uses.
pub(crate) fn check(schedule: &str) -> Result<(), String> {
    if schedule.starts_with('@') {
        let every = schedule.strip_prefix("@every ");
        return match (NAMED.contains(&schedule), every) {
            (true, _) => Ok(()),
            (_, Some(every)) if is_duration(every) => Ok(()),
            (_, Some(_)) => Err(format!("failed to parse duration {schedule}")),
            _ => Err(format!("unrecognized descriptor: {schedule}")),
        };
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!(
            "expected exactly 5 fields, found {}: [{}]",
            fields.len(),
            fields.join(" ")
        ));
    }
    for (field, bounds) in fields.iter().zip(FIELDS) {
        for part in field.split(',') {
            range(part, bounds)?;
        }
    }
    Ok(())
}

/// `*`, `5`, `1-5`, `*/15`, `1-30/5`, `mon-fri`.
fn range(text: &str, (least, most, names): (i64, i64, &[&str])) -> Result<(), String> {
    let (span, step) = text
        .split_once('/')
        .map_or((text, None), |(span, step)| (span, Some(step)));
    if step.is_some_and(|step| step.contains('/')) {
        return Err(format!("too many slashes: {text}"));
    }
    let (first, last) = span
        .split_once('-')
        .map_or((span, None), |(first, last)| (first, Some(last)));
    let number = |word: &str| -> Result<i64, String> {
        let named = names.iter().position(|name| name.eq_ignore_ascii_case(word));
        match named {
            Some(at) => Ok(at as i64 + least),
            None if word.is_empty() || !word.bytes().all(|b| b.is_ascii_digit()) => Err(format!(
                "failed to parse int from {word}: strconv.Atoi: parsing {word:?}: invalid syntax"
            )),
            None => word
                .parse()
                .map_err(|_| format!("failed to parse int from {word}: value out of range")),
        }
    };
    let (start, end) = match (first, last) {
        ("*" | "?", None) => (least, most),
        (_, Some(last)) if last.contains('-') => return Err(format!("too many hyphens: {text}")),
        (first, Some(last)) => (number(first)?, number(last)?),
        (first, None) => {
            let start = number(first)?;
            // A step from one number on goes to the end.
            (start, if step.is_some() { most } else { start })
        }
    };
    let step = step.map_or(Ok(1), number)?;
    match () {
        () if start < least => Err(format!("beginning of range ({start}) below minimum ({least}): {text}")),
        () if end > most => Err(format!("end of range ({end}) above maximum ({most}): {text}")),
        () if start > end => Err(format!(
            "beginning of range ({start}) beyond end of range ({end}): {text}"
        )),
        () if step == 0 => Err(format!("step of range should be a positive number: {text}")),
        () => Ok(()),
    }
}

/// As Go writes durations: `1h30m`.
fn is_duration(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let unit = ["ns", "us", "µs", "ms", "s", "m", "h"]
            .into_iter()
            .filter(|unit| rest[digits..].starts_with(unit))
            .max_by_key(|unit| unit.len());
        match unit {
            Some(unit) if digits > 0 => rest = &rest[digits + unit.len()..],
            _ => return false,
        }
    }
    !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn schedules_are_read_as_cron_reads_them() {
        for good in [
            "* * * * *",
            "*/5 0-6,12 1 jan-MAR mon",
            "@hourly",
            "@every 1h30m",
            "0 0 ? * 0",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, says) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("61 * * * *", "end of range (61) above maximum (59): 61"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("@often", "unrecognized descriptor: @often"),
            (
                "x * * * *",
                "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
        ] {
            assert_eq!(check(bad), Err(says.to_owned()), "{bad}");
        }
    }
}
