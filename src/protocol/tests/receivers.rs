//! What must not stop or mislead a receiver: each case in its smallest form.

use super::*;
