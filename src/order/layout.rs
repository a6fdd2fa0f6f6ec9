//! What all messages have in common: the header, what is wrong with bytes, and the macro that makes
//! a message's type, its codec and its entry in the schema of one list of fields.

use thiserror::Error;
use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Of every message of the order path.
pub const SCHEMA_ID: u16 = 71;
/// What this library writes. It reads this and later ones.
pub const SCHEMA_VERSION: u16 = 1;
/// Bytes of SBE's message header.
pub const HEADER_BYTES: usize = 8;
/// Bytes of the longest message that this library writes.
pub const MESSAGE_BYTES_MAX: usize = 128;

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Shorter than its header, or than the header says, or than the message is.
    #[error("{bytes} bytes, where the message has {wanted}")]
    Short {
        /// What there is.
        bytes: usize,
        /// What there should be.
        wanted: usize,
    },
    /// Another schema.
    #[error("schema {schema}, not {SCHEMA_ID}")]
    Schema {
        /// Its number.
        schema: u16,
    },
    /// A message that this version does not know.
    #[error("template {template} is unknown to version {SCHEMA_VERSION}")]
    Template {
        /// Its number.
        template: u16,
    },
    /// A field whose value has no meaning.
    #[error("field {field} of {message} has no meaning")]
    Value {
        /// Which message.
        message: &'static str,
        /// Which field.
        field: &'static str,
    },
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct Header {
    pub(super) block_length: U16,
    pub(super) template_id: U16,
    pub(super) schema_id: U16,
    pub(super) version: U16,
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

/// A message as it stands in the schema.
#[cfg(test)]
pub(crate) struct Layout {
    pub(crate) name: &'static str,
    pub(crate) template: u16,
    /// Name, type and length of each field.
    pub(crate) fields: &'static [(&'static str, &'static str, usize)],
}

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident = $template:literal {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
    })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct $name {
                $($(#[$field_doc])* pub $field: $type,)*
            }

            const _: () = {
                #[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
                #[repr(C)]
                struct Wire {
                    header: Header,
                    $($field: <$type as Field>::Wire,)*
                }

                const _: () = assert!(size_of::<Wire>() <= MESSAGE_BYTES_MAX);

                impl $name {
                    /// Its number in the schema.
                    pub const TEMPLATE_ID: u16 = $template;
                    /// Its length, header and all.
                    pub const BYTES: usize = size_of::<Wire>();

                    /// Its bytes.
                    #[inline]
                    pub fn encode(&self) -> [u8; size_of::<Wire>()] {
                        let wire = Wire {
                            header: Header {
                                block_length: U16::new((Self::BYTES - HEADER_BYTES) as u16),
                                template_id: U16::new($template),
                                schema_id: U16::new(SCHEMA_ID),
                                version: U16::new(SCHEMA_VERSION),
                            },
                            $($field: self.$field.to_wire(),)*
                        };
                        zerocopy::transmute!(wire)
                    }

                    /// Reads the fields behind a header that has been checked.
                    #[inline]
                    fn read(bytes: &[u8]) -> Result<Self, MessageError> {
                        let Ok((wire, _)) = Wire::ref_from_prefix(bytes) else {
                            let wanted = Self::BYTES;
                            return Err(MessageError::Short { bytes: bytes.len(), wanted });
                        };
                        Ok(Self {$(
                            $field: match <$type as Field>::from_wire(wire.$field) {
                                Some(value) => value,
                                None => return Err(MessageError::Value {
                                    message: stringify!($name),
                                    field: stringify!($field),
                                }),
                            },
                        )*})
                    }
                }
            };

            impl From<$name> for Message {
                fn from(message: $name) -> Self {
                    Self::$name(message)
                }
            }
        )*

        /// Any message of the order path.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Message {
            $(#[doc = concat!("[`", stringify!($name), "`]")] $name($name),)*
        }

        impl Message {
            /// Template id and name of each message in the schema.
            pub const TEMPLATES: &[(u16, &str)] = &[$(($template, stringify!($name)),)*];

            /// Reads a message.
            ///
            /// # Errors
            /// [`MessageError`]: if the bytes are too short, of another schema, of an unknown
            /// template, or a field has a value without a meaning.
            #[inline]
            pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
                let Ok((header, _)) = Header::ref_from_prefix(bytes) else {
                    return Err(MessageError::Short { bytes: bytes.len(), wanted: HEADER_BYTES });
                };
                let schema = header.schema_id.get();
                if schema != SCHEMA_ID {
                    return Err(MessageError::Schema { schema });
                }
                let wanted = HEADER_BYTES + usize::from(header.block_length.get());
                let Some(block) = bytes.get(..wanted) else {
                    return Err(MessageError::Short { bytes: bytes.len(), wanted });
                };
                match header.template_id.get() {
                    $($template => $name::read(block).map(Self::$name),)*
                    template => Err(MessageError::Template { template }),
                }
            }

            /// Appends the message's bytes.
            pub fn encode_to(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$name(message) => out.extend_from_slice(&message.encode()),)*
                }
            }

            /// Its name in the schema.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($name),)*
                }
            }

            /// Calls `visit` with each field's name and value, in the order of the layout.
            pub fn visit(&self, mut visit: impl FnMut(&'static str, &dyn fmt::Display)) {
                match self {
                    $(Self::$name(message) => {
                        $(visit(stringify!($field), &message.$field);)*
                    })*
                }
            }
        }

        #[cfg(test)]
        pub(crate) const LAYOUTS: &[Layout] = &[$(Layout {
            name: stringify!($name),
            template: $template,
            fields: &[$((
                stringify!($field),
                <$type as Field>::SBE,
                size_of::<<$type as Field>::Wire>(),
            ),)*],
        },)*];
    };
}

pub(super) use messages;
