//! Quantities: `500m`, `1.5Gi`, `2e3`. Parsed, compared and written exactly as `k8s.io/apimachinery/pkg/api/resource` does.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Add, Neg, Sub};
use std::str::FromStr;

use crate::Failure;

/// An exact number of billionths, and the family of suffixes it is written with.
///
/// Holds ±1.7 × 10²⁹; more is refused (Kubernetes goes on, but caps binary ones at 2⁶³−1, as is done here).
/// Equality and order are those of the number: `1` equals `1000m`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// `m`, none, `k`, `M` …
    #[default]
    Decimal,
    /// `Ki`, `Mi` …
    Binary,
    /// `e3`, `E6` …
    Exponent,
}

const NANO: i128 = 1_000_000_000;
const WRONG_FORMAT: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const WRONG_NUMBER: &str = "unable to parse numeric part of quantity";
const WRONG_SUFFIX: &str = "unable to parse quantity's suffix";

/// A text taken apart: `-`, `1`, `5`, `Gi`.
struct Parts<'t> {
    negative: bool,
    /// Without leading zeros, at least one digit.
    whole: &'t str,
    fraction: &'t str,
    suffix: &'t str,
}

impl Quantity {
    pub const ZERO: Quantity = Quantity {
        nanos: 0,
        format: Format::Decimal,
    };

    /// # Errors
    /// [`Failure::BadRequest`] in apimachinery's words.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        Self::read(text)
            .map(|(quantity, _)| quantity)
            .map_err(|says| Failure::BadRequest(says.into()))
    }

    /// What an API server writes where `text` was sent: the canonical form, or `text` itself where apimachinery holds
    /// that to be canonical already (`1.500`, `+1`).
    ///
    /// # Errors
    /// Those of [`Quantity::parse`].
    pub fn normalize(text: &str) -> Result<String, &'static str> {
        let (quantity, canonical) = Self::read(text)?;
        Ok(if canonical {
            text.to_owned()
        } else {
            quantity.to_string()
        })
    }

    /// Billionths: CPU as it is measured.
    pub fn from_nanos(nanos: i64) -> Self {
        Self {
            nanos: nanos.into(),
            format: Format::Decimal,
        }
    }

    pub fn from_milli(milli: i64) -> Self {
        Self {
            nanos: i128::from(milli) * 1_000_000,
            format: Format::Decimal,
        }
    }

    pub fn from_whole(value: i64, format: Format) -> Self {
        Self {
            nanos: i128::from(value) * NANO,
            format,
        }
    }

    /// Rounded away from zero, as `Quantity.Value()`: bytes, counts. Beyond `i64`: its ends.
    pub fn value(self) -> i64 {
        saturate(divide_up(self.nanos, NANO))
    }

    /// Rounded away from zero, as `Quantity.MilliValue()`: CPU.
    pub fn milli(self) -> i64 {
        saturate(divide_up(self.nanos, 1_000_000))
    }

    pub fn nanos(self) -> i128 {
        self.nanos
    }

    pub fn format(self) -> Format {
        self.format
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// The second: whether apimachinery keeps the text as it was sent.
    fn read(text: &str) -> Result<(Self, bool), &'static str> {
        if text == "0" {
            return Ok((Self::ZERO, true));
        }
        let Parts {
            negative,
            whole,
            fraction,
            suffix,
        } = take_apart(text)?;
        let (format, exponent) = interpret(suffix).ok_or(WRONG_SUFFIX)?;
        let digits = (whole.len() + fraction.len()) as i64;
        let shifted = || whole.bytes().chain(fraction.bytes());
        let mut number: i128 = 0;
        // Fractions beyond the billionth are kept until the end: they round up.
        let mut scale: i64 = -(fraction.len() as i64);
        let mut rest = false;
        for digit in shifted() {
            match number
                .checked_mul(10)
                .and_then(|n| n.checked_add(i128::from(digit - b'0')))
            {
                Some(next) if !rest => number = next,
                _ => {
                    rest = true;
                    scale += 1;
                }
            }
        }
        let (short, multiplier, power) = match format {
            Format::Binary => {
                let precision = 15 - whole.len() as i64 - exponent * 3 / 10 - 1;
                (fraction.is_empty() && precision >= 0, 1i128 << exponent, 0)
            }
            Format::Decimal | Format::Exponent => (digits <= 18 && exponent + scale >= -9, 1, exponent),
        };
        let canonical = short
            && match format {
                Format::Binary => exponent % 10 == 0 && number & 7 != 0,
                _ => (scale + power) % 3 == 0 && !ends_in_thousand(whole, fraction) && !whole.starts_with('0'),
            };
        let nanos =
            shift(number.checked_mul(multiplier).ok_or(WRONG_NUMBER)?, scale + power + 9).ok_or(WRONG_NUMBER)?;
        let mut format = format;
        let mut nanos = nanos;
        if format == Format::Binary {
            nanos = nanos.min(i128::from(i64::MAX) * NANO);
            if nanos > 0 && nanos < NANO {
                format = Format::Decimal;
            }
        }
        Ok((
            Self {
                nanos: if negative { -nanos } else { nanos },
                format,
            },
            canonical,
        ))
    }
}

fn take_apart(text: &str) -> Result<Parts<'_>, &'static str> {
    if text.is_empty() {
        return Err(WRONG_FORMAT);
    }
    let negative = text.starts_with('-');
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let rest = unsigned.trim_start_matches('0');
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (whole, rest) = rest.split_at(digits(rest));
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    let tail = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let tail = tail.strip_prefix(['-', '+']).unwrap_or(tail);
    if !tail.bytes().all(|b| b.is_ascii_digit()) {
        return Err(WRONG_FORMAT);
    }
    let whole = if whole.is_empty() { "0" } else { whole };
    Ok(Parts {
        negative,
        whole,
        fraction,
        suffix,
    })
}

fn interpret(suffix: &str) -> Option<(Format, i64)> {
    if let Some(at) = BINARY.iter().position(|s| *s == suffix) {
        return Some((Format::Binary, 10 * (at as i64 + 1)));
    }
    if let Some(at) = DECIMAL.iter().position(|s| *s == suffix) {
        return Some((Format::Decimal, 3 * (at as i64 - 3)));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    // Beyond this no number fits; the bound keeps the arithmetic on exponents small.
    (-400..=400).contains(&exponent).then_some((Format::Exponent, exponent))
}

const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

fn ends_in_thousand(whole: &str, fraction: &str) -> bool {
    let digits = fraction.bytes().rev().chain(whole.bytes().rev());
    whole.len() + fraction.len() >= 3 && digits.take(3).all(|d| d == b'0')
}

/// `number × 10^by`, rounded away from zero.
fn shift(number: i128, by: i64) -> Option<i128> {
    if number == 0 {
        return Some(0);
    }
    let power = u32::try_from(by.unsigned_abs()).ok()?;
    match (by >= 0, 10i128.checked_pow(power)) {
        (true, Some(factor)) => number.checked_mul(factor),
        (true, None) => None,
        (false, Some(factor)) => Some(divide_up(number, factor)),
        (false, None) => Some(number.signum()),
    }
}

fn divide_up(number: i128, by: i128) -> i128 {
    let rounding = if number % by == 0 { 0 } else { number.signum() };
    number / by + rounding
}

fn saturate(number: i128) -> i64 {
    i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX })
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the largest suffix that allows it, binary only if whole and at least 1024.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let mut number = self.nanos;
        if self.format == Format::Binary && number % NANO == 0 && (number / NANO).abs() >= 1024 {
            number /= NANO;
            let mut at = 0;
            while number % 1024 == 0 && at < BINARY.len() {
                number /= 1024;
                at += 1;
            }
            let suffix = if at == 0 { "" } else { BINARY[at - 1] };
            return write!(f, "{number}{suffix}");
        }
        let mut exponent = -9;
        while number % 1000 == 0 && (self.format == Format::Exponent || exponent < 18) {
            number /= 1000;
            exponent += 3;
        }
        match (self.format, exponent) {
            (Format::Exponent, 0) => write!(f, "{number}"),
            (Format::Exponent, _) => write!(f, "{number}e{exponent}"),
            _ => write!(f, "{number}{}", DECIMAL[(exponent / 3 + 3) as usize]),
        }
    }
}

impl FromStr for Quantity {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        Self::parse(text)
    }
}

/// Keeps the format of the left side, or takes that of the right if the left is zero, as `Quantity.Add` does. Saturates.
impl Add for Quantity {
    type Output = Quantity;

    fn add(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity {
            nanos: self.nanos.saturating_add(other.nanos),
            format,
        }
    }
}

impl Sub for Quantity {
    type Output = Quantity;

    fn sub(self, other: Quantity) -> Quantity {
        self + -other
    }
}

impl Neg for Quantity {
    type Output = Quantity;

    fn neg(self) -> Quantity {
        Quantity {
            nanos: self.nanos.saturating_neg(),
            ..self
        }
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nanos.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn normalizes_as_an_api_server_does() {
        for (sent, served) in [
            ("0", "0"),
            ("0Ki", "0"),
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1000m", "1"),
            ("0.5Gi", "512Mi"),
            ("1024Mi", "1Gi"),
            ("1Gi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("2000Mi", "2000Mi"),
            ("1e3", "1e3"),
            ("1E6", "1E6"),
            ("100e1", "1e3"),
            ("1.500", "1.500"),
            ("0.500", "500m"),
            ("+1", "+1"),
            ("-0.5", "-500m"),
            ("0.1n", "1n"),
            ("100Ki", "100Ki"),
            ("1000k", "1M"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("1000", "1k"),
            ("128974848", "128974848"),
            ("1Ei", "1Ei"),
            ("9Ei", "9223372036854775807"),
            ("129e6", "129e6"),
            ("1.2e3", "1200"),
            ("12e-1", "1200e-3"),
        ] {
            assert_eq!(Quantity::normalize(sent).as_deref(), Ok(served), "{sent}");
        }
    }

    #[test]
    fn refuses_what_is_no_quantity() {
        for (text, says) in [
            ("", WRONG_FORMAT),
            ("1.1.M", WRONG_FORMAT),
            ("aoeu", WRONG_FORMAT),
            ("1 Gi", WRONG_FORMAT),
            ("0.1mi", WRONG_SUFFIX),
            ("1i", WRONG_SUFFIX),
            ("-3.01e-", WRONG_SUFFIX),
            ("1e400000", WRONG_SUFFIX),
            ("1e60", WRONG_NUMBER),
        ] {
            assert_eq!(Quantity::normalize(text), Err(says), "{text}");
        }
    }

    #[test]
    fn rounds_up_and_compares_numbers() {
        let parse = |text: &str| Quantity::parse(text).unwrap();
        assert_eq!(
            (parse("1.5").value(), parse("1500u").milli(), parse("-1.5").value()),
            (2, 2, -2)
        );
        assert_eq!(parse("1"), parse("1000m"));
        assert!(parse("1Ki") > parse("1k") && parse("-1") < parse("0"));
        assert_eq!((parse("0") + parse("1Ki")).to_string(), "1Ki");
        assert_eq!((parse("1") - parse("100m")).to_string(), "900m");
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_a_fixed_point(text in "[+-]?[0-9]{1,9}(\\.[0-9]{0,10})?(n|u|m|k|M|G|T|Ki|Mi|Gi|Ti|e-?[0-9])?") {
            let quantity = Quantity::parse(&text).unwrap();
            let again = Quantity::parse(&quantity.to_string()).unwrap();
            prop_assert_eq!(again, quantity);
            prop_assert_eq!(again.to_string(), quantity.to_string());
        }

        #[test]
        fn any_text_is_answered(text in "\\PC{0,12}") {
            let _ = Quantity::normalize(&text);
        }
    }
}
