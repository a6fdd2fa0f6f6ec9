//! A range of sequence numbers on the command line: `FROM..TO`, either end open, TO not included.

use std::str::FromStr;

/// Sequence numbers from `from` (the oldest, if open) up to but not including `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) from: Option<u64>,
    pub(crate) to: Option<u64>,
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| match part {
            "" => Ok(None),
            part => part.parse().map(Some).map_err(|_| format!("{part:?} is no sequence number")),
        };
        match text.split_once("..") {
            Some((from, to)) => Ok(Self { from: number(from)?, to: number(to)? }),
            None => {
                let Some(one) = number(text)? else {
                    return Err("expected FROM..TO, as 10..20, 10.., ..20, or one number".into());
                };
                Ok(Self { from: Some(one), to: Some(one.saturating_add(1)) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_end_may_be_open() {
        let range = |from, to| Ok(Range { from, to });
        assert_eq!("10..20".parse(), range(Some(10), Some(20)));
        assert_eq!("10..".parse(), range(Some(10), None));
        assert_eq!("..20".parse(), range(None, Some(20)));
        assert_eq!("..".parse(), range(None, None));
        assert_eq!("7".parse(), range(Some(7), Some(8)));
        for bad in ["", "a..b", "-1..2", "1..2..3"] {
            assert!(bad.parse::<Range>().is_err(), "{bad}");
        }
    }
}
