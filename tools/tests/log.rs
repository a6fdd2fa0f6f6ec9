//! `gapless log` from outside: what goes into a log comes out of it, in every form; what is damaged
//! is told.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use gapless::Flags;
use gapless::log::{LogOptions, LogReader, ReadFrom, survey};
use serde_json::Value;
use support::Rings;

const SAMPLE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../data/moex-forts-2013/increment_a.binfile");
const SECOND: u64 = 1_000_000_000;
/// When message 0 of a made log would have been recorded.
const START: u64 = 1_763_788_800 * SECOND;

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// A log of the real sample, in segments of 64 KiB.
fn sample_log(rings: &Rings) -> PathBuf {
    let directory = rings.path().join("sample");
    let import = ["log", "import", SAMPLE, text(&directory), "--format", "file", "--name", "forts"];
    let more = ["--first", "482727", "--segment", "64K", "--json"];
    let imported = rings.start_all(&[&import[..], &more].concat()).end().expect(0).json();
    assert_eq!((&imported["messages"], &imported["lost"]), (&8101.into(), &0.into()));
    directory
}

/// A log of ten messages a second, numbers 1 to 100 with 41 to 43 lost, and a session behind that.
fn made_log(rings: &Rings) -> PathBuf {
    let directory = rings.path().join("made");
    let (mut log, _) = LogOptions::new().name("made").open(&directory).expect("a log");
    log.begin(35, 1).expect("a session");
    for sequence in (1..=40).chain(44..=100) {
        let unix_ns = START + sequence * SECOND / 10;
        if sequence == 44 {
            log.append_lost(3, unix_ns).expect("told");
        }
        let payload = format!("message {sequence}");
        log.append(sequence, payload.as_bytes(), Flags::WHOLE, unix_ns).expect("appended");
        log.flush().expect("written"); // each has its own time
    }
    log.begin(36, 7).expect("a session");
    let long = vec![b'x'; 3000];
    for (sequence, payload, flags) in
        [(7, &b"one"[..], Flags::BEGIN), (8, b"two", Flags::END), (9, &long, Flags::WHOLE)]
    {
        log.append(sequence, payload, flags, START + 20 * SECOND).expect("appended");
    }
    log.close().expect("closed");
    directory
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

/// All of a log as JSON lines, and whether something was lacking.
fn exported(rings: &Rings, directory: &Path) -> (String, i32) {
    let export = ["log", "export", text(directory), "-", "--format", "json", "--all-sessions"];
    let ended = rings.run(export);
    (ended.out().to_owned(), ended.code())
}

#[test]
fn ls_shows_segments_readers_and_totals() {
    let rings = Rings::new();
    let directory = sample_log(&rings);
    let mut reader = LogReader::open(&directory, ReadFrom::Oldest).expect("a log");
    reader.poll(100, |_, _| ()).expect("messages");
    reader.declare("risk").expect("declared");
    let found = rings.run(["log", "ls", text(&directory), "--json"]).expect(0).json();
    let segments = found["segments"].as_array().expect("segments");
    assert!(segments.len() >= 8, "{found:#}");
    assert_eq!(segments[0]["first_sequence"], 482_727);
    assert_eq!(segments[segments.len() - 1]["next_sequence"], 490_828);
    assert!(segments.iter().all(|segment| segment["state"] == "finished"), "{found:#}");
    let totals = &found["totals"];
    assert_eq!((&totals["stream"], &totals["messages"]), (&"forts".into(), &8101.into()));
    let reader = &found["readers"][0];
    assert_eq!((&reader["name"], &reader["behind"]), (&"risk".into(), &8001.into()));
    let address = format!("log:{}", directory.display());
    let shown = rings.run(["log", "ls", &address]).expect(0);
    for part in ["482,727", "490,828", "risk", "8,001", "forts", "finished"] {
        assert!(shown.out().contains(part), "{part}: {}", shown.out());
    }
    let nothing = rings.run(["log", "ls", "/no/such/log"]).expect(1);
    assert!(nothing.err().contains("there is no log in /no/such/log"), "{}", nothing.err());
}

#[test]
fn the_sample_comes_out_as_it_went_in() {
    let rings = Rings::new();
    let directory = sample_log(&rings);
    let copy = rings.path().join("copy.binfile");
    let export = ["log", "export", text(&directory), text(&copy), "--format", "file"];
    let ended = rings.run(export).expect(0);
    assert!(ended.err().contains("exported 8,101 messages"), "{}", ended.err());
    let same = std::fs::read(&copy).expect("a copy") == std::fs::read(SAMPLE).expect("the sample");
    assert!(same, "byte for byte");
    // Imported once more, the log goes on.
    let import = ["log", "import", SAMPLE, text(&directory), "--format", "file", "--json"];
    let again = rings.run(import).expect(0).json();
    assert_eq!(again["next_sequence"], 482_727 + 2 * 8101);
}

#[test]
fn lines_and_packets_keep_session_number_and_time() {
    let rings = Rings::new();
    let (made, copy) = (made_log(&rings), rings.path().join("copy"));
    let (json, code) = exported(&rings, &made);
    assert_eq!(code, 3, "some are lost");
    let told = lines(&json);
    assert_eq!(told.len(), 40 + 1 + 57 + 3);
    let lost = serde_json::json!({"session": "000000000Z", "sequence": 41, "lost": 3});
    assert_eq!(told[40], lost);
    assert_eq!(told[98]["flags"], "begin");
    let file = rings.path().join("made.json");
    std::fs::write(&file, &json).expect("written");
    let import = ["log", "import", text(&file), text(&copy), "--format", "json", "--json"];
    let imported = rings.run(import).expect(3).json();
    assert_eq!((&imported["messages"], &imported["lost"]), (&100.into(), &3.into()));
    assert_eq!(exported(&rings, &copy).0, json);
    // Packets do not say what is a fragment; all else they do.
    let (capture, copy) = (rings.path().join("made.pcap"), rings.path().join("from-packets"));
    let export = ["log", "export", text(&made), text(&capture), "--format", "pcap"];
    rings.start_all(&[&export[..], &["--all-sessions"]].concat()).end().expect(3);
    let import = ["log", "import", text(&capture), text(&copy), "--format", "pcap"];
    rings.start_all(&[&import[..], &["--port", "26400"]].concat()).end().expect(3);
    let whole = json.replace("\"begin\"", "\"whole\"").replace("\"end\"", "\"whole\"");
    assert_eq!(exported(&rings, &copy).0, whole);
    // Twice the same: nothing new.
    let other = ["log", "import", text(&capture), text(&copy), "--format", "pcap", "--json"];
    let refused = rings.run(other).expect(1);
    assert!(refused.err().contains("session"), "{}", refused.err());
}

#[test]
fn two_lines_of_a_capture_become_one_log() {
    let rings = Rings::new();
    let (directory, copy) = (sample_log(&rings), rings.path().join("copy"));
    let (a, b) = (rings.path().join("a.pcap"), rings.path().join("b.pcap"));
    let (both, odd) = (rings.path().join("both.pcap"), rings.path().join("odd.pcap"));
    let export = |file: &Path, more: &[&str]| {
        let export = ["log", "export", text(&directory), text(file), "--format", "pcap"];
        rings.start_all(&[&export[..], more].concat()).end().expect(0);
    };
    export(&a, &["--until", "490000"]);
    export(&b, &["--from", "482751", "--to", "239.1.2.4:26401"]);
    let (a, b) = (std::fs::read(a).expect("a"), std::fs::read(b).expect("b"));
    std::fs::write(&both, [&a[..], &b[24..]].concat()).expect("written");
    let import = ["log", "import", text(&both), text(&copy), "--format", "pcap", "--json"];
    let imported = rings.run(import).expect(0).json();
    assert_eq!((&imported["messages"], &imported["lost"]), (&8101.into(), &0.into()));
    assert_eq!(imported["duplicates"], 490_000 - 482_751);
    std::fs::write(&odd, &a[..a.len() - 7]).expect("written");
    let into = rings.path().join("odd");
    let cut = ["log", "import", text(&odd), text(&into), "--format", "pcap"];
    assert!(rings.run(cut).expect(1).err().contains("ends inside the record"));
}

#[test]
fn wireshark_reads_the_capture_and_its_times() {
    if Command::new("tshark").arg("--version").output().is_err() {
        eprintln!("skipped: there is no tshark (Debian: tshark)");
        return;
    }
    let rings = Rings::new();
    let (made, capture) = (made_log(&rings), rings.path().join("made.pcap"));
    let export = ["log", "export", text(&made), text(&capture), "--format", "pcap"];
    rings.start_all(&[&export[..], &["--session", "000000000Z"]].concat()).end().expect(3);
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(&capture).args(["-d", "udp.port==26400,moldudp64"]);
    tshark.args(["-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]);
    tshark.args(["-T", "fields", "-E", "separator=;"]);
    for field in ["frame.time_epoch", "moldudp64.session", "moldudp64.sequence"] {
        tshark.args(["-e", field]);
    }
    for field in ["ip.checksum.status", "udp.checksum.status", "_ws.expert.message"] {
        tshark.args(["-e", field]);
    }
    let output = tshark.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = (1..=40).chain(44..=100_u64).map(|sequence| {
        let tenths = START / SECOND * 10 + sequence;
        let time = format!("{}.{}00000000", tenths / 10, tenths % 10);
        format!("{time};000000000Z;{sequence};1;1;")
    });
    let good = |line: &str| line.replace(";Good;Good;", ";1;1;"); // as some versions say it
    let found: Vec<String> = found.lines().map(good).collect();
    assert_eq!(found, expected.collect::<Vec<_>>());
}

#[test]
fn dump_shows_messages_in_three_ways_and_what_is_lost() {
    let rings = Rings::new();
    let made = made_log(&rings);
    let dump = |more: &[&str], code| {
        let ended = rings.start_all(&[&["log", "dump", text(&made)], more].concat()).end();
        ended.expect(code).out().to_owned()
    };
    let first = ["--session", "000000000Z"];
    let hex = dump(&[&first[..], &["--from", "40", "--count", "2"]].concat(), 3);
    let expected = [
        "40  2025-11-22T05:20:04.000000000Z  10 B  whole",
        "  000000  6d 65 73 73 61 67 65 20  34 30                    |message 40|",
        "-- 3 messages from 41 on are not in the log",
        "44  2025-11-22T05:20:04.400000000Z  10 B  whole",
        "  000000  6d 65 73 73 61 67 65 20  34 34                    |message 44|",
    ];
    assert_eq!(hex.lines().collect::<Vec<_>>(), expected);
    let part = ["--from", "@2025-11-22T05:20:05Z", "--until", "@1763788805.3", "--format", "json"];
    let json = lines(&dump(&[&first[..], &part].concat(), 0));
    let numbers: Vec<_> = json.iter().map(|line| line["sequence"].as_u64()).collect();
    assert_eq!(numbers, [Some(50), Some(51), Some(52)]);
    assert_eq!(dump(&["--from", "now"], 0), "");
    // It is another feed's, and said to be.
    let foreign = dump(&["--format", "itch", "--count", "1"], 3);
    assert!(foreign.contains("?? no ITCH 5.0: type 'o'"), "{foreign}");
    rings.run(["log", "dump", text(&made), "--until", "now"]).expect(2);
    rings.run(["log", "dump", text(&made), "--from", "500"]).expect(0);
    let gone = rings.run(["log", "dump", text(&made), "--session", "0000000000"]).expect(1);
    assert!(gone.err().contains("session 0000000000 is not in the log"), "{}", gone.err());
}

#[test]
fn itch_is_decoded() {
    let rings = Rings::new();
    let (file, directory) = (rings.path().join("itch.binfile"), rings.path().join("itch"));
    let mut order = b"A\0\x07\0\x02".to_vec();
    order.extend(&34_200_000_000_123_u64.to_be_bytes()[2..]);
    order.extend(b"\0\0\0\0\0\0\x10\xe1B\0\0\0\x64AAPL    \0\x12\xd6\x87");
    let event = b"S\0\0\0\0\x0a\x2d\xf4\x92\x1d\x67O";
    let mut bytes = Vec::new();
    for message in [&event[..], &order] {
        bytes.extend((message.len() as u16).to_be_bytes());
        bytes.extend(message);
    }
    std::fs::write(&file, bytes).expect("written");
    rings.run(["log", "import", text(&file), text(&directory), "--format", "file"]).expect(0);
    let shown = rings.run(["log", "dump", text(&directory), "--format", "itch"]).expect(0);
    let order = "A 09:30:00.000000123 add locate=7 tracking=2 order=4321 side=B shares=100 \
                 stock=AAPL price=123.4567";
    assert!(
        shown.out().lines().nth(1).is_some_and(|line| line.ends_with(order)),
        "{}",
        shown.out()
    );
    let event = "S 03:06:32.493022567 system event locate=0 tracking=0 event=O";
    assert!(
        shown.out().lines().next().is_some_and(|line| line.ends_with(event)),
        "{}",
        shown.out()
    );
}

#[test]
fn verify_names_what_is_damaged_and_the_rest_can_be_had() {
    let rings = Rings::new();
    let directory = sample_log(&rings);
    let verify = ["log", "verify", text(&directory)];
    let sound = rings.run(verify).expect(0);
    assert!(sound.out().contains("every message that was recorded is sound"), "{}", sound.out());
    let segments = survey(&directory).expect("segments");
    let segment = &segments[3];
    let mut bytes = std::fs::read(&segment.path).expect("readable");
    bytes[30_000] ^= 1;
    std::fs::write(&segment.path, bytes).expect("written");
    let told = rings.run(verify).expect(3);
    assert!(told.out().contains("WRONG: "), "{}", told.out());
    let report = rings.run(["log", "verify", text(&directory), "--json"]).expect(3).json();
    assert_eq!(report["sound"], false);
    let findings = report["findings"].as_array().expect("findings");
    assert_eq!(findings.len(), 1, "{report:#}");
    let number = |key: &str| findings[0][key].as_u64().expect("a number");
    assert_eq!((&findings[0]["kind"], &findings[0]["damage"]), (&"damaged".into(), &true.into()));
    let (offset, length) = (number("offset"), number("bytes"));
    assert!((offset..offset + length).contains(&30_000), "{report:#}");
    assert_eq!(report["messages"].as_u64(), Some(8101 - number("count")));
    // Everything else comes out, and the hole has its numbers.
    let (json, code) = exported(&rings, &directory);
    let told = lines(&json);
    let hole: Vec<&Value> = told.iter().filter(|line| !line["lost"].is_null()).collect();
    assert_eq!((code, hole.len()), (3, 1));
    let (first, count) = (&hole[0]["sequence"], &hole[0]["lost"]);
    assert_eq!((first, count), (&findings[0]["first_sequence"], &findings[0]["count"]));
    assert_eq!(told.len() as u64 - 1, 8101 - number("count"));
}

#[test]
fn an_index_is_made_again() {
    let rings = Rings::new();
    let directory = sample_log(&rings);
    let index = survey(&directory).expect("segments")[2].path.with_extension("idx");
    std::fs::write(&index, b"nonsense").expect("written");
    let verify = ["log", "verify", text(&directory)];
    let told = rings.run(verify).expect(3);
    assert!(told.out().contains("the index"), "{}", told.out());
    let repair = ["log", "verify", text(&directory), "--repair-index", "--json"];
    let repaired = rings.run(repair).expect(0).json();
    assert_eq!((&repaired["repaired_indexes"], &repaired["sound"]), (&1.into(), &true.into()));
    rings.run(verify).expect(0);
}

#[test]
fn trim_goes_as_far_as_readers_let_it() {
    let rings = Rings::new();
    let directory = sample_log(&rings);
    let oldest = || survey(&directory).expect("segments")[0].first_sequence;
    let trim = |more: &[&str], code| {
        let trim = ["log", "trim", text(&directory), "--json"];
        rings.start_all(&[&trim[..], more].concat()).end().expect(code)
    };
    let mut reader = LogReader::open(&directory, ReadFrom::Sequence(485_000)).expect("a log");
    reader.declare("risk").expect("declared");
    let trimmed = trim(&["--before", "489000"], 0).json();
    assert_eq!(trimmed["slowest_reader"], "risk");
    assert!(oldest() > 482_727 && oldest() <= 485_000, "{trimmed:#}");
    assert!(trim(&["--forget", "nobody"], 1).err().contains("no reader nobody"));
    let trimmed = trim(&["--forget", "risk", "--before", "489000"], 0).json();
    assert!(oldest() > 485_000 && oldest() <= 489_000, "{trimmed:#}");
    let kept = trim(&["--keep-bytes", "100K"], 0).json();
    let segments = survey(&directory).expect("segments");
    let bytes: u64 = segments.iter().map(|segment| segment.file_bytes).sum();
    let without_oldest = bytes - segments[0].file_bytes;
    assert!(bytes >= 100 << 10 && without_oldest < 100 << 10, "{kept:#}");
    trim(&["--keep-age", "1h"], 0);
    assert_eq!(survey(&directory).expect("segments").len(), segments.len(), "all are young");
    trim(&["--keep-age", "0s"], 0);
    assert_eq!(survey(&directory).expect("segments").len(), 1, "the newest stays");
    trim(&[], 2);
    trim(&["--keep-age", "soon"], 2);
    rings.run(["log", "verify", text(&directory)]).expect(0);
}
