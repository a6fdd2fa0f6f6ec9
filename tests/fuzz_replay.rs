//! The fuzz targets of the wire, frames, the log, the book and the order path on a stable
//! toolchain: the corpus, and inputs from a seed.

use std::path::Path;

use gapless::protocol::Random;

#[expect(unreachable_pub, reason = "it is also the library of the fuzz crate")]
#[path = "../fuzz/src/entry.rs"]
mod entry;

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

#[test]
fn the_packets_corpus() {
    replay("packets", entry::packets);
}

#[test]
fn the_machines_corpus() {
    replay("machines", entry::machines);
}

#[test]
fn the_bulk_corpus() {
    replay("bulk", entry::bulk);
}

#[test]
fn the_log_corpus() {
    replay("log", entry::log);
}

#[test]
fn the_book_corpus() {
    replay("book", entry::book);
}

#[test]
fn the_orders_corpus() {
    replay("orders", entry::orders);
}

#[test]
fn the_frames_corpus() {
    replay("frames", entry::frames);
}

#[test]
fn days_at_random() {
    let mut random = Random::new(5);
    for _ in 0..200 {
        let mut input = Vec::new();
        for _ in 0..random.below(60) {
            let (head, mut command) = (random.next().to_le_bytes(), commands(&mut random));
            if random.chance(0.3) {
                let at = random.below(command.len() as u64) as usize;
                command[at] ^= 1 << random.below(8);
            }
            let kind = if random.chance(0.8) { 0 } else { head[0] };
            input.extend([kind, head[1], head[2], command.len() as u8]);
            input.append(&mut command);
        }
        eprintln!("{input:?}"); // the last one is shown if it fails
        entry::orders(&input);
    }
}

/// A command that mostly means something.
fn commands(random: &mut Random) -> Vec<u8> {
    use gapless::order::Message;
    let templates: Vec<u16> = Message::TEMPLATES.iter().map(|&(template, _)| template).collect();
    let template = templates[random.below(templates.len() as u64) as usize];
    let mut bytes = vec![0; 8];
    bytes[2..4].copy_from_slice(&template.to_le_bytes());
    bytes[4..6].copy_from_slice(&gapless::order::messages::SCHEMA_ID.to_le_bytes());
    bytes[6] = 1;
    for _ in 0..120 {
        bytes.push(if random.chance(0.7) { 0 } else { random.below(4) as u8 });
    }
    bytes[0] = 120;
    bytes
}

#[test]
fn damage_at_random() {
    let mut random = Random::new(2);
    for _ in 0..150 {
        let len = random.below(40);
        let input: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        eprintln!("{input:?}"); // the last one is shown if it fails
        entry::log(&input);
    }
}

#[test]
fn machines_at_random() {
    let mut random = Random::new(1);
    for _ in 0..20_000 {
        let len = random.below(600);
        let input: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        entry::packets(&input);
        entry::bulk(&input);
        entry::machines(&input);
    }
}

#[test]
fn books_at_random() {
    let mut random = Random::new(3);
    for _ in 0..3_000 {
        let len = random.below(2_000);
        let input: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        entry::book(&input);
    }
}

#[test]
fn frames_at_random() {
    let mut random = Random::new(4);
    for _ in 0..20_000 {
        let len = random.below(200);
        let input: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        entry::frames(&input);
    }
}
