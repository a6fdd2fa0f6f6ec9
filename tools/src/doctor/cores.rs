//! Sets of cores as the kernel writes them: `0-3,8`.

/// Cores beyond this are nobody's: a damaged text must not take all memory.
const CORES_MAX: u32 = 1 << 16;

/// The cores of a list, in order; `None` if it is no such list. Older kernels write `(null)` for
/// none.
pub(super) fn parse(text: &str) -> Option<Vec<u32>> {
    let mut cores = Vec::new();
    if matches!(text.trim(), "" | "(null)") {
        return Some(cores);
    }
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if first > last || last >= CORES_MAX {
            return None;
        }
        cores.extend(first..=last);
    }
    cores.sort_unstable();
    cores.dedup();
    Some(cores)
}

/// The list of these cores, which are in order.
pub(super) fn text(cores: &[u32]) -> String {
    let mut parts = Vec::new();
    let mut rest = cores;
    while let [first, ..] = rest {
        let run = rest.iter().zip(*first..).take_while(|(core, expected)| **core == *expected);
        let length = run.count();
        let last = rest[length - 1];
        parts.push(if length == 1 { first.to_string() } else { format!("{first}-{last}") });
        rest = &rest[length..];
    }
    parts.join(",")
}

/// "1 core", "2 cores".
pub(super) fn count_text(count: usize) -> String {
    format!("{count} core{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written() {
        for list in ["", "0", "0-3", "0-3,8", "1,3,5-6"] {
            assert_eq!(text(&parse(list).expect(list)), list);
        }
        assert_eq!(parse("(null)\n"), Some(vec![]));
        assert_eq!(parse("3,1-2,2"), Some(vec![1, 2, 3]));
        for bad in ["x", "3-1", "1-", "-", "1,,2", "0-4294967295"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
