//! gapless
