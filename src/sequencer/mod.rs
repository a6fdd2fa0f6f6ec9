//! The sequencer: many client streams become one, in one total order.

mod application;
mod image;
mod record;

pub use application::{Application, Events, LoadError};
pub use image::{ImageReader, ImageWriter};
pub use record::{ClientId, Kind, Leaving, Record, RecordError, Refusal, Role, STAMP_BYTES};
