//! Netlink's bytes: messages, and attributes within them, read and written.
//!
//! Nothing here knows what a message means. Reading never panics, whatever the bytes: what does not
//! fit ends the walk.

use std::net::IpAddr;

/// Bytes of a message's header: length, kind, flags, sequence number, port.
pub(super) const MESSAGE_HEADER: usize = 16;
/// Bytes of an attribute's header: length, kind.
const ATTRIBUTE_HEADER: usize = 4;
/// Everything starts at a multiple of so many bytes.
const ALIGNMENT: usize = 4;

/// One message of those in a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// What it is: `RTM_*` or `NLMSG_*`.
    pub(super) kind: u16,
    /// `NLM_F_*`.
    pub(super) flags: u16,
    /// The number of the request that it answers.
    pub(super) sequence: u32,
    /// What follows the header.
    pub(super) body: &'a [u8],
}

/// The messages in a datagram, up to its end or the first that is malformed.
#[derive(Clone, Debug)]
pub(super) struct Messages<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let len = usize::try_from(word_at(self.0, 0)?).ok()?;
        let body = self.0.get(MESSAGE_HEADER..len)?;
        let message = Message {
            kind: half_at(self.0, 4)?,
            flags: half_at(self.0, 6)?,
            sequence: word_at(self.0, 8)?,
            body,
        };
        self.0 = rest(self.0, len);
        Some(message)
    }
}

/// Attributes with their kinds, up to the end or the first that is malformed.
#[derive(Clone, Debug)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Attributes<'a> {
    /// What comes after the `header` bytes of a message's own.
    pub(super) fn after(header: usize, body: &'a [u8]) -> Self {
        Self(body.get(header..).unwrap_or_default())
    }

    /// The value of the first of that kind.
    pub(super) fn find(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone().find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// The attributes within the first of that kind; none if there is none.
    pub(super) fn within(&self, kind: u16) -> Self {
        Self(self.find(kind).unwrap_or_default())
    }

    /// The first of that kind as a number of exactly 32 bits.
    pub(super) fn word(&self, kind: u16) -> Option<u32> {
        self.find(kind)?.try_into().ok().map(u32::from_ne_bytes)
    }

    /// The first of that kind as a number of exactly 64 bits.
    pub(super) fn long(&self, kind: u16) -> Option<u64> {
        self.find(kind)?.try_into().ok().map(u64::from_ne_bytes)
    }

    /// The first of that kind as a number of exactly 16 bits.
    pub(super) fn half(&self, kind: u16) -> Option<u16> {
        self.find(kind)?.try_into().ok().map(u16::from_ne_bytes)
    }

    /// The first of that kind as text, up to its NUL.
    pub(super) fn text(&self, kind: u16) -> Option<String> {
        let bytes = self.find(kind)?.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }

    /// The first of that kind as an address.
    pub(super) fn address(&self, kind: u16) -> Option<IpAddr> {
        address(self.find(kind)?)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let len = usize::from(half_at(self.0, 0)?);
        let value = self.0.get(ATTRIBUTE_HEADER..len)?;
        let kind = half_at(self.0, 2)? & libc::NLA_TYPE_MASK as u16;
        self.0 = rest(self.0, len);
        Some((kind, value))
    }
}

/// A request on its way to the kernel.
#[derive(Clone, Debug)]
pub(super) struct Request(Vec<u8>);

impl Request {
    /// One of that kind, with `NLM_F_*` flags (that it is a request goes without saying) and the
    /// header that such messages have, whose length is a multiple of 4.
    pub(super) fn new(kind: u16, flags: i32, header: &[u8]) -> Self {
        let mut bytes = vec![0; MESSAGE_HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
        bytes.extend_from_slice(header);
        Self(bytes)
    }

    /// The same with one more attribute, of at most 65,531 bytes.
    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let len = (ATTRIBUTE_HEADER + value.len()) as u16;
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(ALIGNMENT), 0);
        self
    }

    /// Attributes to be the value of another.
    pub(super) fn nest(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let empty = Self(Vec::new());
        attributes.iter().fold(empty, |nest, (kind, value)| nest.with(*kind, value)).0
    }

    /// The bytes to send, as the request of that number.
    pub(super) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// An address of either family, told by its length.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = || <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four().or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The 16 bits at that offset.
pub(super) fn half_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// The 32 bits at that offset.
pub(super) fn word_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// What follows a piece of `len` bytes and its padding.
fn rest(bytes: &[u8], len: usize) -> &[u8] {
    bytes.get(len.next_multiple_of(ALIGNMENT)..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let request = Request::new(18, libc::NLM_F_DUMP, &[9; 8])
            .with(3, b"eth0\0")
            .with(1, &[10, 0, 0, 1])
            .with(5 | libc::NLA_F_NESTED as u16, &Request::nest(&[(2, b"in")]))
            .finish(77);
        let messages: Vec<Message<'_>> = Messages(&request).collect();
        let [message] = messages[..] else { panic!("{messages:?}") };
        assert_eq!((message.kind, message.sequence), (18, 77));
        assert_eq!(i32::from(message.flags), libc::NLM_F_REQUEST | libc::NLM_F_DUMP);
        assert_eq!(&message.body[..8], &[9; 8]);
        let attributes = Attributes::after(8, message.body);
        assert_eq!(attributes.text(3).as_deref(), Some("eth0"));
        assert_eq!(attributes.address(1), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(attributes.within(5).find(2), Some(&b"in"[..]));
        assert_eq!(attributes.find(4), None);
        assert_eq!(attributes.clone().count(), 3);
    }

    #[test]
    fn messages_follow_each_other_until_one_is_cut() {
        let first = Request::new(16, 0, &[]).with(1, b"odd").finish(1);
        let second = Request::new(17, 0, &[]).finish(2);
        let both = [first.as_slice(), &second].concat();
        let kinds = |bytes| Messages(bytes).map(|message| message.kind).collect::<Vec<_>>();
        assert_eq!(kinds(&both), [16, 17]);
        for cut in first.len()..both.len() {
            assert_eq!(kinds(&both[..cut]), [16], "cut at {cut}");
        }
        assert_eq!(kinds(&[0; 64]), [0; 0], "a length of none leads nowhere");
        assert_eq!(Attributes(&[0; 64]).count(), 0, "a length of none leads nowhere");
    }

    #[test]
    fn numbers_have_their_width() {
        let bytes = Request::new(0, 0, &[]).with(1, &[1, 0, 0, 0]).with(2, &[2, 0]);
        let bytes = bytes.with(3, &7_u64.to_ne_bytes()).finish(0);
        let attributes = Attributes::after(MESSAGE_HEADER, &bytes);
        assert_eq!(attributes.word(1), Some(u32::from_ne_bytes([1, 0, 0, 0])));
        assert_eq!(attributes.half(2), Some(u16::from_ne_bytes([2, 0])));
        assert_eq!((attributes.half(1), attributes.word(2)), (None, None));
        assert_eq!((attributes.long(3), attributes.long(1)), (Some(7), None));
        assert_eq!(attributes.address(2), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let within: usize = Messages(&bytes).map(|message| message.body.len()).sum();
            prop_assert!(within <= bytes.len());
            let within: usize = Attributes(&bytes).map(|(_, value)| value.len()).sum();
            prop_assert!(within <= bytes.len());
        }
    }
}
