//! Decimal numbers as people write them, exactly: never by way of a float.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// A number times ten to a power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub(crate) struct Decimal {
    mantissa: i64,
    /// How many of its digits are behind the point.
    places: u8,
}

/// As a file may have it: text, or a whole number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Whole(i64),
    Text(String),
}

impl TryFrom<Written> for Decimal {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Whole(mantissa) => Ok(Self { mantissa, places: 0 }),
            Written::Text(text) => text.parse(),
        }
    }
}

impl FromStr for Decimal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no decimal number, as 187.25");
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let unsigned = whole.strip_prefix('-').unwrap_or(whole);
        if unsigned.is_empty() || !digits(unsigned) || !digits(part) || text.ends_with('.') {
            return Err(wrong());
        }
        let part = part.trim_end_matches('0');
        let mantissa = format!("{whole}{part}").parse().map_err(|_| wrong())?;
        Ok(Self { mantissa, places: u8::try_from(part.len()).map_err(|_| wrong())? })
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(self.mantissa, -(self.places as i8)))
    }
}

impl Decimal {
    /// In units of ten to `exponent`; says what is wrong if it is no whole number of them, or too
    /// many.
    pub(crate) fn at(self, exponent: i8) -> Result<i64, String> {
        let Self { mantissa, places } = self;
        let shift = -i32::from(places) - i32::from(exponent);
        let power = 10_i64.checked_pow(shift.unsigned_abs());
        if shift < 0 && power.is_none_or(|power| mantissa % power != 0) {
            return Err(format!("{self} is no whole number of units of 1e{exponent}"));
        }
        let scaled = power.and_then(|power| match shift < 0 {
            true => mantissa.checked_div(power),
            false => mantissa.checked_mul(power),
        });
        scaled.ok_or_else(|| format!("{self} is more than 64 bits of units of 1e{exponent}"))
    }
}

/// `value` units of ten to `exponent`, as people write it.
pub(crate) fn text(value: i64, exponent: i8) -> String {
    if exponent >= 0 {
        let zeroes = if value == 0 { 0 } else { usize::from(exponent.unsigned_abs()) };
        return format!("{value}{}", "0".repeat(zeroes));
    }
    let places = usize::from(exponent.unsigned_abs());
    let digits = format!("{:0width$}", value.unsigned_abs(), width = places + 1);
    let (whole, part) = digits.split_at(digits.len() - places);
    format!("{}{whole}.{part}", if value < 0 { "-" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_as_they_were_written() {
        let at = |text: &str, exponent| text.parse::<Decimal>().and_then(|d| d.at(exponent));
        assert_eq!((at("187.25", -2), at("187.25", -4)), (Ok(18725), Ok(1_872_500)));
        assert_eq!((at("187.50", -1), at("-0.05", -2), at("1200", 2)), (Ok(1875), Ok(-5), Ok(12)));
        assert!(at("187.25", -1).is_err() && at("1250", 3).is_err(), "not a whole number");
        assert!(at("9223372036854775807", -1).is_err(), "too large");
        for bad in ["", ".", "1.", ".5", "1e5", "--1", "1.2.3", "1 ", "+1", "-"] {
            assert!(bad.parse::<Decimal>().is_err(), "{bad:?}");
        }
        for (value, exponent, wanted) in
            [(18725, -2, "187.25"), (-5, -2, "-0.05"), (12, 2, "1200"), (0, 3, "0"), (7, 0, "7")]
        {
            assert_eq!(text(value, exponent), wanted);
        }
        assert_eq!(text(i64::MIN, -18), "-9.223372036854775808");
    }
}
