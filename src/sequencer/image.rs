//! Saved state, byte by byte: what [`Application::save`](super::Application::save) writes with and
//! `load` reads with.
//!
//! Little-endian numbers one after the other; no lengths or names but those that are written. A
//! short or odd image is an error of the reader's, never a panic.

use super::application::LoadError;

/// Appends numbers to an image.
///
/// ```
/// use gapless::sequencer::{ImageReader, ImageWriter};
///
/// let mut image = Vec::new();
/// let mut writer = ImageWriter::new(&mut image);
/// writer.u32(7);
/// writer.i64(-1);
/// let mut reader = ImageReader::new(&image);
/// assert_eq!((reader.u32("seven")?, reader.i64("minus one")?), (7, -1));
/// reader.finish("nothing more")?;
/// # Ok::<(), gapless::sequencer::LoadError>(())
/// ```
pub struct ImageWriter<'a>(&'a mut Vec<u8>);

/// Reads numbers from an image.
pub struct ImageReader<'a>(&'a [u8]);

macro_rules! numbers {
    ($($number:ident),*) => {
        impl<'a> ImageWriter<'a> {
            /// Appends to `image`.
            pub fn new(image: &'a mut Vec<u8>) -> Self {
                Self(image)
            }

            /// Appends bytes as they are.
            pub fn bytes(&mut self, bytes: &[u8]) {
                self.0.extend_from_slice(bytes);
            }

            $(
                /// Appends a number.
                pub fn $number(&mut self, value: $number) {
                    self.0.extend_from_slice(&value.to_le_bytes());
                }
            )*
        }

        impl<'a> ImageReader<'a> {
            /// Reads `image` from its beginning.
            pub fn new(image: &'a [u8]) -> Self {
                Self(image)
            }

            /// The next `count` bytes.
            ///
            /// # Errors
            /// [`LoadError`], saying `what`, if there are fewer.
            pub fn bytes(
                &mut self,
                count: usize,
                what: &'static str,
            ) -> Result<&'a [u8], LoadError> {
                let (bytes, rest) = self.0.split_at_checked(count).ok_or(LoadError { what })?;
                self.0 = rest;
                Ok(bytes)
            }

            /// How many things of at least `least_bytes` each follow, by their number as `u32`:
            /// never more than there are bytes for, so that room may be made for them.
            ///
            /// # Errors
            /// [`LoadError`], saying `what`, if there are not so many bytes.
            pub fn count(
                &mut self,
                least_bytes: usize,
                what: &'static str,
            ) -> Result<usize, LoadError> {
                let count = self.u32(what)? as usize;
                let fits = count.checked_mul(least_bytes).is_some_and(|need| need <= self.0.len());
                if fits { Ok(count) } else { Err(LoadError { what }) }
            }

            /// All that is left.
            pub fn rest(self) -> &'a [u8] {
                self.0
            }

            /// That nothing is left.
            ///
            /// # Errors
            /// [`LoadError`], saying `what`, if there are more bytes.
            pub fn finish(self, what: &'static str) -> Result<(), LoadError> {
                if self.0.is_empty() { Ok(()) } else { Err(LoadError { what }) }
            }

            $(
                /// The next number.
                ///
                /// # Errors
                /// [`LoadError`], saying `what`, if there are too few bytes.
                pub fn $number(&mut self, what: &'static str) -> Result<$number, LoadError> {
                    let (bytes, rest) = self.0.split_first_chunk().ok_or(LoadError { what })?;
                    self.0 = rest;
                    Ok($number::from_le_bytes(*bytes))
                }
            )*
        }
    };
}

numbers!(u8, i8, u16, u32, i32, u64, i64, u128, i128);
