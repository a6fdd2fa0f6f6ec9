//! The types of messages' fields: what a number means, and how it travels.

use std::fmt;

use zerocopy::little_endian::{I32, I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::sequencer::ClientId;

/// A type that stands in messages.
pub(crate) trait Field: Sized {
    /// How it travels, without alignment.
    type Wire: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned + Copy;
    /// Its name in the SBE schema.
    #[cfg(test)]
    const SBE: &'static str;

    fn to_wire(self) -> Self::Wire;
    /// `None` if the bytes have no meaning.
    fn from_wire(wire: Self::Wire) -> Option<Self>;
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident($native:ty) as $wire:ty = $sbe:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $native);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl Field for $name {
            type Wire = $wire;
            #[cfg(test)]
            const SBE: &'static str = $sbe;

            #[inline]
            fn to_wire(self) -> $wire {
                <$wire>::new(self.0)
            }

            #[inline]
            fn from_wire(wire: $wire) -> Option<Self> {
                Some(Self(wire.get()))
            }
        }
    )*};
}

numbers! {
    /// An order, by the number that the client gave it: 1 and more, each larger than the one
    /// before it (as OUCH 5.0 has it for its UserRefNum), so that a second use is known for one
    /// without remembering every order of the day.
    ClientOrderId(u64) as U64 = "ClientOrderId";
    /// An order, by the sequence number of the command that brought it: unique in its session. 0
    /// is no order.
    OrderId(u64) as U64 = "OrderId";
    /// An instrument, 1 and more; 0 stands for all.
    InstrumentId(u32) as U32 = "InstrumentId";
    /// A price in units of ten to the instrument's `price_exponent`. Never a float.
    Price(i64) as I64 = "Price";
    /// An amount of the instrument, in its own smallest units.
    Quantity(u64) as U64 = "Quantity";
    /// Price times quantity times multiplier: money, in units of ten to `price_exponent`.
    Money(i64) as I64 = "Money";
}

macro_rules! plain {
    ($($native:ty => $wire:ty, $sbe:literal;)*) => {$(
        impl Field for $native {
            type Wire = $wire;
            #[cfg(test)]
            const SBE: &'static str = $sbe;

            #[inline]
            fn to_wire(self) -> $wire {
                self.into()
            }

            #[inline]
            fn from_wire(wire: $wire) -> Option<Self> {
                Some(wire.into())
            }
        }
    )*};
}

plain! {
    u8 => u8, "uint8";
    i8 => i8, "int8";
    u16 => U16, "uint16";
    u32 => U32, "uint32";
    u64 => U64, "uint64";
    i32 => I32, "int32";
}

impl Field for ClientId {
    type Wire = U16;
    #[cfg(test)]
    const SBE: &'static str = "ClientId";

    fn to_wire(self) -> U16 {
        U16::new(self.0)
    }

    fn from_wire(wire: U16) -> Option<Self> {
        Some(Self(wire.get()))
    }
}

impl Field for bool {
    type Wire = u8;
    #[cfg(test)]
    const SBE: &'static str = "Bool";

    fn to_wire(self) -> u8 {
        u8::from(self)
    }

    fn from_wire(wire: u8) -> Option<Self> {
        (wire <= 1).then_some(wire == 1)
    }
}

/// An instrument's name: up to 16 bytes of ASCII, filled up with zeroes.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol([u8; 16]);

impl Symbol {
    /// The name; `None` if it is empty, longer than 16 bytes, or not of printable ASCII.
    pub fn new(name: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        let printable = name.bytes().all(|byte| byte.is_ascii_graphic());
        if name.is_empty() || !printable {
            return None;
        }
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(Self(bytes))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(16);
        std::str::from_utf8(&self.0[..end]).unwrap_or_default()
    }
}

impl fmt::Debug for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl Field for Symbol {
    type Wire = [u8; 16];
    #[cfg(test)]
    const SBE: &'static str = "Symbol";

    fn to_wire(self) -> [u8; 16] {
        self.0
    }

    fn from_wire(wire: [u8; 16]) -> Option<Self> {
        let end = wire.iter().position(|&byte| byte == 0).unwrap_or(16);
        let (name, rest) = wire.split_at(end);
        let sound = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
        (sound && rest.iter().all(|&byte| byte == 0)).then_some(Self(wire))
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident {
        $($(#[$variant_doc:meta])* $variant:ident = $code:literal,)*
    })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
            #[repr(u8)]
            pub enum $name {
                $($(#[$variant_doc])* $variant = $code,)*
            }

            impl $name {
                /// All of them, by code.
                pub const ALL: &[Self] = &[$(Self::$variant,)*];

                /// The one with this code.
                #[inline]
                pub fn of(code: u8) -> Option<Self> {
                    match code {
                        $($code => Some(Self::$variant),)*
                        _ => None,
                    }
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.pad(match self {
                        $(Self::$variant => stringify!($variant),)*
                    })
                }
            }

            impl Field for $name {
                type Wire = u8;
                #[cfg(test)]
                const SBE: &'static str = stringify!($name);

                #[inline]
                fn to_wire(self) -> u8 {
                    self as u8
                }

                #[inline]
                fn from_wire(wire: u8) -> Option<Self> {
                    Self::of(wire)
                }
            }
        )*

        /// Of each enumeration, its name and its variants with their codes: what the schema says.
        #[cfg(test)]
        pub(crate) const CODES: &[(&str, &[(&str, u8)])] =
            &[$((stringify!($name), &[$((stringify!($variant), $code),)*]),)*];
    };
}

codes! {
    /// Which way an order goes. The codes are FIX's (tag 54), as numbers.
    Side {
        /// Buys.
        Buy = 1,
        /// Sells.
        Sell = 2,
    }

    /// Whether an order has a price. The codes are FIX's (tag 40), as numbers.
    OrderType {
        /// At any price. What is left of it when the other side is empty is cancelled.
        Market = 1,
        /// At its price or a better one.
        Limit = 2,
    }

    /// How long an order stands. The codes are FIX's (tag 59), as numbers.
    TimeInForce {
        /// Until the market closes.
        Day = 0,
        /// Immediate or cancel: what does not trade at once is cancelled.
        Ioc = 3,
        /// Fill or kill: all of it at once, or nothing.
        Fok = 4,
    }

    /// Whether an instrument can be traded.
    MarketState {
        /// Orders are refused. Closing cancels what is open.
        Closed = 0,
        /// Orders are taken and matched.
        Open = 1,
        /// Orders are refused, cancels are taken; what is open stays.
        Halted = 2,
    }

    /// Which side of a fill an order was.
    Liquidity {
        /// It stood in the book.
        Maker = 1,
        /// It came in and met another.
        Taker = 2,
    }

    /// What happens when an order would trade with one of the same client's.
    SelfMatch {
        /// They trade.
        Allow = 0,
        /// The rest of the incoming order is cancelled.
        CancelIncoming = 1,
        /// The standing order is cancelled, and the incoming one goes on.
        CancelStanding = 2,
    }

    /// What a gateway asks of a venue.
    RouteAction {
        /// A new order.
        New = 1,
        /// To cancel it.
        Cancel = 2,
        /// To replace price and quantity.
        Replace = 3,
    }

    /// What a venue reports.
    ReportKind {
        /// It took the order.
        Accepted = 1,
        /// It refused the order.
        Rejected = 2,
        /// The order traded, all of it or some.
        Filled = 3,
        /// The order is out of the book.
        Cancelled = 4,
        /// The order has another price or quantity.
        Replaced = 5,
        /// It refused to cancel or replace the order.
        CancelRejected = 6,
    }

    /// Why a command was rejected.
    Reason {
        /// The bytes are no message of this schema, or a field has no meaning.
        Malformed = 1,
        /// The client's role does not allow it.
        NotAuthorised = 2,
        /// No such instrument.
        UnknownInstrument = 3,
        /// Neither buy nor sell.
        InvalidSide = 4,
        /// A quantity of zero, or beyond what can be reckoned with.
        InvalidQuantity = 5,
        /// Not a whole number of lots.
        InvalidLot = 6,
        /// A limit order without a price above zero, or a price that overflows.
        InvalidPrice = 7,
        /// Not a whole number of ticks.
        InvalidTick = 8,
        /// The type and the time in force do not go together.
        InvalidCombination = 9,
        /// The market is closed.
        MarketClosed = 10,
        /// The instrument is halted.
        Halted = 11,
        /// A client order id that is not larger than the last one.
        DuplicateOrder = 12,
        /// No such order has ever been.
        UnknownOrder = 13,
        /// The order is another client's.
        WrongOwner = 14,
        /// The order is filled or cancelled already.
        TooLate = 15,
        /// More orders in a second than the client may send.
        OrderRate = 16,
        /// The client, or everybody, is stopped.
        KillSwitch = 17,
        /// Larger than the largest quantity.
        MaxQuantity = 18,
        /// Worth more than the largest order may be.
        MaxNotional = 19,
        /// Too far from the reference price.
        PriceCollar = 20,
        /// There is no reference price, or it is too old.
        StaleReference = 21,
        /// Too many open orders.
        OpenOrders = 22,
        /// The position would become too large if all open orders filled.
        PositionLimit = 23,
        /// All positions and open orders together would be worth too much.
        GrossExposure = 24,
        /// More money than the client has.
        Credit = 25,
        /// The day's loss is too large.
        LossLimit = 26,
        /// It would trade with the client's own order.
        SelfTrade = 27,
        /// It would have traded at once, and was to be posted only.
        WouldCross = 28,
        /// No more orders, clients or instruments fit the tables.
        Capacity = 29,
        /// The venue cannot be reached.
        VenueDown = 30,
        /// The venue says no.
        VenueRejected = 31,
        /// A limit that makes no sense.
        InvalidLimit = 32,
        /// The venue has not answered an earlier cancel or replacement of the order.
        Pending = 33,
    }

    /// Why an order, or the rest of one, is out of the market.
    CancelReason {
        /// Its client asked.
        Requested = 1,
        /// Immediate or cancel, or a market order, with a rest.
        Unfilled = 2,
        /// Fill or kill that could not be filled.
        Killed = 3,
        /// It would have traded at once, and was to be posted only.
        WouldCross = 4,
        /// It would have traded with the client's own order.
        SelfMatch = 5,
        /// Its client is gone.
        Disconnected = 6,
        /// Its client, or everybody, was stopped.
        KillSwitch = 7,
        /// Its client broke a limit.
        Breach = 8,
        /// The market has closed.
        MarketClosed = 9,
        /// The venue did it.
        Venue = 10,
    }
}

impl Side {
    /// The other side.
    pub fn opposite(self) -> Self {
        match self {
            Self::Buy => Self::Sell,
            Self::Sell => Self::Buy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_is_short_printable_and_padded_with_zeroes() {
        let symbol = Symbol::new("AAPL").unwrap();
        assert_eq!((symbol.as_str(), Symbol::from_wire(symbol.to_wire())), ("AAPL", Some(symbol)));
        assert!(Symbol::new("SIXTEEN-BYTES-OK").is_some());
        for bad in ["", "seventeen-bytes-x", "no space", "\u{20AC}"] {
            assert_eq!(Symbol::new(bad), None, "{bad}");
        }
        assert_eq!(Symbol::from_wire([0; 16]), None);
        assert_eq!(Symbol::from_wire(*b"A\0B\0\0\0\0\0\0\0\0\0\0\0\0\0"), None);
    }
}
