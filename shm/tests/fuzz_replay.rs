//! The fuzz targets on a stable toolchain: the corpus, and a few thousand inputs of a seeded
//! generator that knows which words hurt.

#![cfg(not(miri))] // file mappings, processes, or too much for an interpreter

#[expect(unreachable_pub, reason = "it is also the library of the fuzz crate")]
#[path = "../fuzz/src/entry.rs"]
mod entry;
mod support;

use std::path::Path;

use support::Rng;

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs = 0;
    for file in std::fs::read_dir(&corpus).unwrap() {
        let path = file.unwrap().path();
        println!("{}", path.display());
        run(&std::fs::read(&path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0, "the corpus of {target} is gone");
}

/// A word that is likely to be taken for something.
fn word(rng: &mut Rng) -> u64 {
    match rng.below(8) {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << rng.below(64),
        3 => rng.below(20480) & !15,
        4 => (140 + rng.below(20)) << 32 | 0x83 << 24 | rng.below(2100),
        5 => (140 + rng.below(20)) << 32 | 0xc0 << 24,
        6 => rng.below(8) << 8 | rng.below(4),
        _ => rng.next(),
    }
}

#[test]
fn the_attach_corpus() {
    replay("attach", entry::attach);
}

#[test]
fn the_mutate_corpus() {
    replay("mutate", entry::mutate);
}

#[test]
fn attach_to_random_damage() {
    let mut rng = Rng::from_environment("attach_to_random_damage");
    for _ in 0..150 {
        let mut input = vec![rng.next() as u8 | 1];
        for _ in 0..1 + rng.below(6) {
            // Half of it in the header and the producer page.
            let end = if rng.below(2) == 0 { 4500 } else { 20480 };
            input.extend((rng.below(end) as u16).to_le_bytes());
            input.extend(word(&mut rng).to_le_bytes());
        }
        entry::attach(&input);
    }
    for _ in 0..150 {
        let bytes = rng.below(30_000);
        let input: Vec<u8> =
            std::iter::once(0).chain((0..bytes).map(|_| rng.next() as u8)).collect();
        entry::attach(&input);
    }
}

#[test]
fn mutate_at_random() {
    let mut rng = Rng::from_environment("mutate_at_random");
    for _ in 0..600 {
        let mut input = vec![rng.next() as u8];
        for _ in 0..rng.below(40) {
            let kind = rng.below(8) as u8;
            input.push(kind);
            match kind {
                2 | 3 => input.extend([rng.next() as u8, rng.next() as u8]),
                5 => {}
                6 | 7 => {
                    let end = if rng.below(2) == 0 { 400 } else { 16384 };
                    input.extend((rng.below(end) as u16).to_le_bytes());
                    input.extend(word(&mut rng).to_le_bytes());
                }
                _ => input.push(rng.next() as u8),
            }
        }
        entry::mutate(&input);
    }
}
