//! When: a schedule as `spec.schedule` writes it (crontab(5), the macros such as `@daily`), in a time zone.

use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};
use sdk::Instant;

#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    when: When,
    zone: TimeZone,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum When {
    Fields(Box<Fields>),
    Every(SignedDuration),
}

/// A bit for each value that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fields {
    minutes: Set,
    hours: Set,
    days: Set,
    months: Set,
    weekdays: Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Set {
    bits: u64,
    /// Written `*` or `?`.
    any: bool,
}

impl Set {
    fn has(self, value: i8) -> bool {
        self.bits & (1 << value) != 0
    }
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// A day that never comes, such as 30 February, is not looked for any further than this.
const YEARS: i64 = 5;

impl Schedule {
    /// `zone` is a name of the IANA database; empty: UTC.
    ///
    /// # Errors
    /// What is wrong, for a message.
    pub(crate) fn parse(text: &str, zone: &str) -> Result<Self, String> {
        let zone = if zone.is_empty() {
            TimeZone::UTC
        } else {
            let known = TimeZoneDatabase::bundled().get(zone);
            known.map_err(|_| format!("unknown time zone {zone:?}"))?
        };
        let when = match text.strip_prefix('@') {
            Some(name) => of_macro(name)?,
            None => When::Fields(fields(text)?.into()),
        };
        Ok(Self { when, zone })
    }

    /// The first time behind this one.
    pub(crate) fn next(&self, after: Instant) -> Option<Instant> {
        let after = Timestamp::from_millisecond(after.0).ok()?;
        let next = match &self.when {
            // Counted in whole seconds, as its times are written.
            When::Every(every) => Timestamp::from_second(after.as_second())
                .ok()?
                .checked_add(*every)
                .ok()?,
            When::Fields(fields) => fields.next(after, &self.zone)?,
        };
        Some(Instant(next.as_millisecond()))
    }

    /// The last time behind `after` that is not behind `until`.
    pub(crate) fn latest(&self, after: Instant, until: Instant) -> Option<Instant> {
        const HOUR: i64 = 3_600;
        // Looked for in ever longer stretches of the past, so that a schedule of every minute that was not looked at for a
        // year costs what it costs after an hour.
        for stretch in [2 * HOUR, 48 * HOUR, 63 * 24 * HOUR, YEARS * 366 * 24 * HOUR] {
            let mut last = None;
            let from = after.max(until.plus_seconds(-stretch));
            let mut time = self.next(from);
            while let Some(due) = time.filter(|due| *due <= until) {
                last = Some(due);
                time = self.next(due);
            }
            if last.is_some() || from == after {
                return last;
            }
        }
        None
    }
}

impl Fields {
    /// Goes on from the largest unit to the smallest, in local time: an hour that a change of clocks leaves out does not
    /// come, one that it repeats comes twice.
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let start = after.as_second().div_euclid(60) * 60 + 60;
        let mut time = Timestamp::from_second(start).ok()?.to_zoned(zone.clone());
        let end = time.checked_add(YEARS.years()).ok()?;
        while time < end {
            time = if !self.months.has(time.month()) {
                let month = time.first_of_month().ok()?.checked_add(1.month()).ok()?;
                month.start_of_day().ok()?
            } else if !self.has_day(&time) {
                time.tomorrow().ok()?.start_of_day().ok()?
            } else if !self.hours.has(time.hour()) {
                time.checked_add((60 - i64::from(time.minute())).minutes()).ok()?
            } else if !self.minutes.has(time.minute()) {
                time.checked_add(1.minute()).ok()?
            } else {
                return Some(time.timestamp());
            };
        }
        None
    }

    /// Where both kinds of days are named, either is enough.
    fn has_day(&self, time: &Zoned) -> bool {
        let day = self.days.has(time.day());
        let weekday = self.weekdays.has(time.weekday().to_sunday_zero_offset());
        if self.days.any || self.weekdays.any {
            day && weekday
        } else {
            day || weekday
        }
    }
}

fn of_macro(name: &str) -> Result<When, String> {
    let text = match name {
        "yearly" | "annually" => "0 0 1 1 *",
        "monthly" => "0 0 1 * *",
        "weekly" => "0 0 * * 0",
        "daily" | "midnight" => "0 0 * * *",
        "hourly" => "0 * * * *",
        _ => {
            let every = name
                .strip_prefix("every ")
                .and_then(|text| text.parse::<SignedDuration>().ok());
            // Less than a second would never let the controller rest.
            let every = every.map(|every| SignedDuration::from_secs(every.as_secs().max(1)));
            return every
                .map(When::Every)
                .ok_or_else(|| format!("unrecognized descriptor: @{name}"));
        }
    };
    fields(text).map(|fields| When::Fields(fields.into()))
}

fn fields(text: &str) -> Result<Fields, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [minutes, hours, days, months, weekdays] = words[..] else {
        return Err(format!("expected exactly 5 fields, found {}: {words:?}", words.len()));
    };
    Ok(Fields {
        minutes: set(minutes, 0, 59, &[])?,
        hours: set(hours, 0, 23, &[])?,
        days: set(days, 1, 31, &[])?,
        months: set(months, 1, 12, &MONTHS)?,
        weekdays: set(weekdays, 0, 6, &WEEKDAYS)?,
    })
}

/// `*`, `5`, `1-5`, `*/15`, `10-50/10`, `mon,wed`, and combinations with commas.
fn set(text: &str, first: u32, last: u32, names: &[&str]) -> Result<Set, String> {
    let number = |text: &str| {
        let named = names.iter().position(|name| text.eq_ignore_ascii_case(name));
        named
            .map(|at| at as u32 + first)
            .or_else(|| text.parse().ok())
            .ok_or_else(|| format!("failed to parse number: {text:?}"))
    };
    let mut set = Set { bits: 0, any: false };
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(number(step)?)),
            None => (part, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if matches!(range, "*" | "?") => {
                set.any |= step.is_none_or(|step| step == 1);
                (first, last)
            }
            Some((from, to)) => (number(from)?, number(to)?),
            // `5/15`: from there on.
            None if step.is_some() => (number(range)?, last),
            None => (number(range)?, number(range)?),
        };
        let step = step.unwrap_or(1);
        if from < first || to > last || from > to || step == 0 {
            return Err(format!(
                "{part:?} is not within {first}-{last}, in order and with a step above 0"
            ));
        }
        for value in (from..=to).step_by(step as usize) {
            set.bits |= 1 << value;
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Instant {
        Instant::parse(text).expect("a time")
    }

    fn next(schedule: &str, zone: &str, after: &str) -> String {
        let schedule = Schedule::parse(schedule, zone).expect("a schedule");
        schedule.next(at(after)).map_or("never".into(), |time| time.to_string())
    }

    #[test]
    fn the_next_time_is_what_crontab_says() {
        for (schedule, after, expected) in [
            ("*/15 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:15:00Z"),
            ("*/1 * * * ?", "2026-01-01T00:00:30.5Z", "2026-01-01T00:01:00Z"),
            ("5/20 10 * * *", "2026-01-01T10:26:00Z", "2026-01-01T10:45:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 30 2 *", "2026-01-01T00:00:00Z", "never"),
            // The 13th or a Friday; a Friday that is in the first week.
            ("0 0 13 * fri", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 13 * FRI", "2026-01-09T00:00:00Z", "2026-01-13T00:00:00Z"),
            ("30 23 * dec 1-5", "2026-01-01T00:00:00Z", "2026-12-01T23:30:00Z"),
            ("@weekly", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("@every 90s", "2026-01-01T00:00:00.3Z", "2026-01-01T00:01:30Z"),
        ] {
            assert_eq!(next(schedule, "", after), expected, "{schedule} after {after}");
        }
    }

    #[test]
    fn clocks_that_change_leave_an_hour_out_or_repeat_it() {
        let berlin = "Europe/Berlin";
        assert_eq!(
            next("0 8 * * *", berlin, "2026-01-01T00:00:00Z"),
            "2026-01-01T07:00:00Z"
        );
        assert_eq!(
            next("0 8 * * *", berlin, "2026-07-01T00:00:00Z"),
            "2026-07-01T06:00:00Z"
        );
        // 02:30 is not there on 29 March, and twice there on 25 October.
        assert_eq!(
            next("30 2 * * *", berlin, "2026-03-29T00:00:00Z"),
            "2026-03-30T00:30:00Z"
        );
        assert_eq!(
            next("30 2 * * *", berlin, "2026-10-25T00:30:00Z"),
            "2026-10-25T01:30:00Z"
        );
    }

    #[test]
    fn the_latest_time_of_a_long_past_is_found() {
        let minutely = Schedule::parse("* * * * *", "").expect("a schedule");
        let yearly = Schedule::parse("@yearly", "").expect("a schedule");
        let (then, now) = (at("2023-06-01T00:00:00Z"), at("2026-03-04T05:06:07Z"));
        assert_eq!(minutely.latest(then, now), Some(at("2026-03-04T05:06:00Z")));
        assert_eq!(yearly.latest(then, now), Some(at("2026-01-01T00:00:00Z")));
        assert_eq!(yearly.latest(at("2026-01-01T00:00:00Z"), now), None);
    }

    #[test]
    fn says_what_it_cannot_read() {
        for (schedule, zone) in [
            ("* * * *", ""),
            ("60 * * * *", ""),
            ("5-1 * * * *", ""),
            ("*/0 * * * *", ""),
            ("x * * * *", ""),
            ("@sometimes", ""),
            ("* * * * *", "Moon/Base"),
        ] {
            assert!(Schedule::parse(schedule, zone).is_err(), "{schedule} {zone}");
        }
    }
}
