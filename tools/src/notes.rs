//! What a network has to say of how it came to be, told to the user.

use gapless::net::Datagrams;

/// Writes each note on a line of its own, beside the output.
pub(crate) fn tell(network: &impl Datagrams) {
    for note in network.notes() {
        eprintln!("gapless: {note}");
    }
}
