//! The numbers of INCRBYFLOAT: exact decimals, so that every replica computes the same digits and
//! no digit is lost.

use bigdecimal::{BigDecimal, Zero};
use std::str::FromStr;

/// Most digits before the decimal point, as in a 64-bit float.
const WHOLE_DIGITS_MAX: i64 = 309;
/// Most digits after the decimal point.
const FRACTION_DIGITS_MAX: i64 = 100;
/// Longest text of a number.
const TEXT_BYTES_MAX: usize = 512;

/// A number argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Number {
    /// A decimal.
    Finite(BigDecimal),
    /// Infinity, with either sign.
    Infinite,
}

impl Number {
    /// Parses a number; `None` when the text is no number, or one with too many digits.
    pub fn parse(text: &[u8]) -> Option<Number> {
        let text = str::from_utf8(text).ok().filter(|text| text.len() <= TEXT_BYTES_MAX)?;
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        if ["inf", "infinity"].iter().any(|name| unsigned.eq_ignore_ascii_case(name)) {
            return Some(Number::Infinite);
        }
        let plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
        let has_digit = text.bytes().any(|byte| byte.is_ascii_digit());
        let number = BigDecimal::from_str(text).ok().filter(|_| plain && has_digit)?;
        let number = number.normalized();
        let (_, scale) = number.as_bigint_and_exponent();
        let whole = number.digits() as i64 - scale;
        let fits = scale <= FRACTION_DIGITS_MAX && whole <= WHOLE_DIGITS_MAX;
        fits.then_some(Number::Finite(number))
    }
}

/// The sum of two decimals as text, without an exponent; `None` when it has too many digits.
pub fn sum(one: &BigDecimal, other: &BigDecimal) -> Option<String> {
    let sum = (one + other).normalized();
    let (_, scale) = sum.as_bigint_and_exponent();
    if sum.digits() as i64 - scale > WHOLE_DIGITS_MAX {
        return None;
    }
    Some(if sum.is_zero() { "0".to_owned() } else { sum.to_plain_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(one: &str, other: &str) -> Option<String> {
        let finite = |text: &str| match Number::parse(text.as_bytes()) {
            Some(Number::Finite(number)) => number,
            other => panic!("{text} is {other:?}"),
        };
        sum(&finite(one), &finite(other))
    }

    #[test]
    fn sums_are_exact() {
        for (one, other, expected) in [
            ("9007199254740993", "0", "9007199254740993"),
            ("0.1", "0.2", "0.3"),
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("3", "-3", "0"),
            ("-0", "0", "0"),
            ("1.5", "-0.5", "1"),
            ("17179869184", "1.5", "17179869185.5"),
            ("0.00000000000000001", "1", "1.00000000000000001"),
            ("1e-17", "0", "0.00000000000000001"),
            (".5", "5.", "5.5"),
            ("+1", "1E2", "101"),
        ] {
            assert_eq!(add(one, other).as_deref(), Some(expected), "{one} + {other}");
        }
        assert_eq!(add("9e308", "9e308"), None, "the sum has 310 digits");
    }

    #[test]
    fn texts_that_are_no_numbers_or_too_long_are_refused() {
        for text in ["", "-", ".", "e5", "1e", "0x10", " 1", "1 ", "nan", "1_0", "1e309", "1e-101"]
        {
            assert_eq!(Number::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Number::parse("1".repeat(600).as_bytes()), None);
        assert_eq!(Number::parse(b"1e999999999999999999999"), None);
        for text in ["inf", "+inf", "-Infinity"] {
            assert_eq!(Number::parse(text.as_bytes()), Some(Number::Infinite), "{text}");
        }
    }
}
