//! The order path from outside: an engine, its standby and its clients, each a process.

mod support;

use nix::sys::signal::Signal;
use support::{Ended, Rings, Running};

const CLIENTS: [&str; 3] = ["1=shm:ops,role=operator", "2=shm:desk", "3=shm:other"];
const OUT: &str = "shm:sequenced?capacity=1M&wait=yield";

const EXCHANGE: &str = r#"
[[instrument]]
id = 7
symbol = "AAPL"
tick = "0.01"
price_exponent = -2
reference = "187.00"

[[limits]]
client = 2
cancel_on_disconnect = false

[[limits]]
client = 3
max_quantity = 100
taker_fee_ppm = 1000
"#;

/// An engine or a standby: the command is the same.
fn engine(rings: &Rings, verb: &str, more: &[&str]) -> Running {
    let mut arguments = vec!["order", verb, "--out", OUT, "--json"];
    for client in CLIENTS {
        arguments.extend(["--client", client]);
    }
    arguments.extend(["--instruments", "10", "--orders", "1000", "--clients", "3"]);
    rings.start_all(&[&arguments[..], more].concat())
}

fn leading(rings: &Rings, more: &[&str]) -> Running {
    let mut engine = engine(rings, "engine", more);
    engine.await_error_line("leads: term");
    engine
}

fn set_up(rings: &Rings) {
    let file = rings.path().join("exchange.toml");
    std::fs::write(&file, EXCHANGE).expect("written");
    let file = file.to_str().expect("text");
    let operator =
        ["order", "client", "--id", "1", "--to", "shm:ops", "--from", "shm:sequenced", "--setup"];
    let ended = rings.start_all(&[&operator[..], &[file]].concat()).end().expect(0);
    assert_eq!(ended.out().matches("done: ").count(), 3, "{}", ended.out());
}

/// What a client is answered to these lines.
fn trade(rings: &Rings, id: &str, stream: &str, lines: &str) -> Ended {
    let to = format!("shm:{stream}");
    let client = ["order", "client", "--id", id, "--to", &to, "--from", "shm:sequenced"];
    let mut client = rings.start_all(&client);
    client.write(lines);
    client.end()
}

fn stopped(mut engine: Running) -> serde_json::Value {
    engine.signal(Signal::SIGINT);
    engine.end().expect(0).json()
}

#[test]
fn orders_are_checked_matched_and_answered() {
    let rings = Rings::new();
    let engine = leading(&rings, &[]);
    let follow = ["order", "positions", "shm:sequenced", "--follow", "--json", "--every", "1ms"];
    let mut positions = rings.start(follow);
    assert_eq!(positions.read_exact(3), b"[]\n");
    set_up(&rings);
    let limits = ["order", "client", "--id", "2", "--to", "shm:desk", "--from", "shm:sequenced"];
    let mut maker = rings.start_all(&limits);
    maker.write("sell 10 AAPL @ 187.25\n");
    let told = "accepted 1: sell 10 AAPL @ 187.25, order #";
    assert_eq!(maker.read_exact(told.len()), told.as_bytes());
    let taker = trade(&rings, "3", "other", "buy 4 AAPL @ 187.50\nbuy 200 AAPL @ 187\nhalt AAPL\n");
    let taker = taker.expect(0);
    let lines: Vec<&str> = taker.out().lines().collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[0].starts_with("accepted 1: buy 4 AAPL @ 187.50"), "{lines:?}");
    assert_eq!(lines[1], "filled 1: bought 4 AAPL @ 187.25, 0 left, taker, fee 0.75");
    assert_eq!(lines[2..], ["rejected 2: MaxQuantity", "rejected: NotAuthorised"]);
    maker.write("replace 1 20 @ 187.30\nlist\ncancel all\ncancel 1\n");
    let maker = maker.end().expect(0);
    let rest: Vec<&str> = maker.out().lines().skip(1).collect();
    // What its first line began with is read already.
    let order = maker.out().lines().next().expect("a number");
    let listed = format!("open 2: sell 20 AAPL @ 187.30, 16 left, order #{order}");
    let expected = [
        "filled 1: sold 4 AAPL @ 187.25, 6 left, maker",
        "replaced 1 by 2: 16 AAPL @ 187.30 open",
        &listed,
        "1 open, the last was 2",
        "cancelled 2: 16 AAPL, Requested",
        "cancel rejected 1: TooLate",
    ];
    assert_eq!(rest, expected);
    positions.signal(Signal::SIGINT);
    let positions = positions.end().expect(0);
    let last = positions.out().lines().last().expect("positions");
    let last: serde_json::Value = serde_json::from_str(last).expect("JSON");
    assert_eq!((&last[0]["quantity"], &last[1]["quantity"]), (&(-4).into(), &4.into()), "{last}");
    let account = stopped(engine);
    assert_eq!((&account["standing"], &account["trades"]), (&"leading".into(), &1.into()));
    assert_eq!((&account["open_orders"], &account["instruments"]), (&0.into(), &1.into()));
}

#[test]
fn a_standby_goes_on_where_the_engine_was_killed() {
    let rings = Rings::new();
    let mut engine = leading(&rings, &[]);
    let mut standby = self::engine(&rings, "standby", &[]);
    standby.await_error_line("stands by: another leads, term 1");
    set_up(&rings);
    let desk = ["order", "client", "--id", "2", "--to", "shm:desk", "--from", "shm:sequenced"];
    let mut client = rings.start_all(&desk);
    client.write("sell 10 AAPL @ 187.25\n");
    let told = b"accepted 1: sell 10 AAPL";
    assert_eq!(client.read_exact(told.len()), told);
    engine.signal(Signal::SIGKILL);
    standby.await_error_line("leads: term 2");
    drop(engine);
    let taker = trade(&rings, "3", "other", "buy 10 AAPL\n").expect(0);
    assert!(taker.out().contains("filled 1: bought 10 AAPL @ 187.25, 0 left"), "{}", taker.out());
    client.write("cancel 1\n");
    let client = client.end().expect(0);
    assert!(client.out().contains("filled 1: sold 10 AAPL"), "{}", client.out());
    assert!(client.out().contains("cancel rejected 1: "), "{}", client.out());
    let account = stopped(standby);
    assert_eq!((&account["standing"], &account["term"]), (&"leading".into(), &2.into()));
    assert!(account["followed"].as_u64() > Some(0), "{account}");
}

#[test]
fn what_makes_no_sense_is_said() {
    let rings = Rings::new();
    let nobody = rings.run(["order", "engine", "--out", "shm:s"]).expect(2);
    assert!(nobody.err().contains("whose commands?"), "{}", nobody.err());
    rings.run(["order", "engine", "--client", "2=shm:a"]).expect(2);
    rings.run(["order", "engine", "--out", "shm:s", "--client", "2"]).expect(2);
    let file = rings.path().join("wrong.toml");
    std::fs::write(&file, "output = \"shm:s\"\nclients = 3\n").expect("written");
    let file = file.to_str().expect("text");
    let wrong = rings.run(["order", "engine", "--config", file]).expect(1);
    assert!(wrong.err().contains("line 2") && wrong.err().contains("clients"), "{}", wrong.err());
    let book = rings.path().join("book.txt");
    std::fs::write(&book, "1 buy 18725 100\n1 sell 18725 100\n").expect("written");
    let book = book.to_str().expect("text");
    let seed = ["order", "engine", "--out", "shm:s", "--client", "2=shm:a", "--seed-book", book];
    let crossed = rings.run(seed).expect(1);
    assert!(crossed.err().contains("book.txt: line 2"), "{}", crossed.err());
    assert!(crossed.err().contains("WouldCross"), "{}", crossed.err());
    let engine = leading(&rings, &[]);
    let said = trade(&rings, "2", "desk", "buy 10 MSFT\n").expect(3);
    assert!(said.err().contains("no instrument has been defined"), "{}", said.err());
    stopped(engine);
}

/// A day: two clients that keep records, a recorder, an engine that writes its state. Ends all.
fn day(rings: &Rings) {
    let path = |name: &str| rings.path().join(name).to_str().expect("text").to_owned();
    let engine = leading(rings, &["--state", &path("state.json")]);
    let log = format!("log:{}", path("log"));
    let recorder = rings.start(["record", "shm:sequenced?wait=yield", &log, "--json"]);
    set_up(rings);
    let client = |id: &str, stream: &str, lines: &str| {
        let to = format!("shm:{stream}");
        let record = path(&format!("{stream}.orders"));
        let client = ["order", "client", "--id", id, "--to", &to, "--from", "shm:sequenced"];
        let mut client = rings.start_all(&[&client[..], &["--record", &record, "--json"]].concat());
        client.write(lines);
        client.end().expect(0)
    };
    client("2", "desk", "sell 10 AAPL @ 187.25\nsell 5 AAPL @ 187.30\ncancel 2\n");
    client("3", "other", "buy 4 AAPL @ 187.25 ioc\nbuy 4 AAPL @ 180\nbuy 1000 AAPL @ 187\n");
    // Again, as another process: both go on with their records and their numbers.
    client("2", "desk", "sell 10 AAPL @ 187.25\nreplace 3 12 @ 187.20\n");
    stopped(engine);
    recorder.end().expect(0);
}

fn tables(rings: &Rings) -> [String; 7] {
    let log = format!("log:{}", rings.path().join("log").display());
    let tables = ["--instruments", "10", "--orders", "1000", "--clients", "3"];
    let mut all = tables.map(str::to_owned).to_vec();
    all.insert(0, log);
    all.try_into().expect("seven")
}

fn reconcile(rings: &Rings, more: &[&str]) -> Ended {
    let tables = tables(rings);
    let mut arguments = vec!["order", "reconcile", "--json", "--stream"];
    arguments.extend(tables.iter().map(String::as_str));
    rings.start_all(&[&arguments[..], more].concat()).end()
}

#[test]
fn the_stream_tells_who_did_what_and_who_holds_what() {
    let rings = Rings::new();
    day(&rings);
    let log = &tables(&rings)[0];
    let audit =
        |more: &[&str]| rings.start_all(&[&["order", "audit", log, "--json"], more].concat()).end();
    let lines = |ended: &Ended| -> Vec<serde_json::Value> {
        ended.out().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let rejected = lines(&audit(&["--filter", "kind=rejected"]).expect(0));
    assert_eq!(rejected[0]["fields"]["reason"], "MaxQuantity", "{rejected:?}");
    let order = rejected[0]["reference"].to_string();
    let life = lines(&audit(&["--order", &order]).expect(0));
    assert_eq!(life[0]["message"], "NewOrder", "{life:?}");
    assert_eq!((&life[0]["client"], &life[0]["rejected"]), (&3.into(), &"MaxQuantity".into()));
    assert_eq!((life.len(), &life[1]["message"]), (3, &"Rejected".into()), "{life:?}");
    let (from, to) = (order.clone(), format!("{}", order.parse::<u64>().expect("a number") + 1));
    let one = lines(&audit(&["--from", &from, "--to", &to]).expect(0));
    assert_eq!((one.len(), &one[0]["message"]), (2, &"NewOrder".into()), "{one:?}");
    audit(&["--order", "99999999"]).expect(3);
    audit(&["--from", "oldest"]).expect(2);
    let positions = rings.run(["order", "positions", log, "--json"]).expect(0).json();
    let row = |index: usize, key: &str| positions[index][key].clone();
    assert_eq!((row(0, "client"), row(0, "quantity")), (2.into(), (-4).into()));
    assert_eq!((row(1, "client"), row(1, "fees")), (3.into(), 75.into()), "{positions}");
    assert_eq!((row(1, "symbol"), row(1, "average_price")), ("AAPL".into(), 18725.into()));
    let text = rings.run(["order", "positions", log]).expect(0);
    assert!(text.out().contains("187.25") && text.out().contains("AAPL"), "{}", text.out());
}

#[test]
fn an_entry_that_was_changed_breaks_the_chain() {
    let rings = Rings::new();
    day(&rings);
    let log = rings.path().join("log");
    let path = |name: &str| rings.path().join(name).to_str().expect("text").to_owned();
    let chain = path("chain");
    let audit = |log: &str| {
        let arguments = ["order", "audit", log, "--quiet", "--json", "--chain", &chain];
        rings.start_all(&arguments).end()
    };
    let log = log.to_str().expect("text");
    let made = audit(&format!("log:{log}")).expect(0).json();
    assert!(made["chain_appended"].as_u64() > Some(10), "{made}");
    let again = audit(&format!("log:{log}")).expect(0).json();
    assert_eq!(again["chain_compared"], made["chain_appended"]);
    assert_eq!(again["chain_hash"], made["chain_hash"]);
    // The same day without its tenth entry, and with another one in its place.
    let exported = path("day.records");
    rings.run(["log", "export", log, &exported, "--format", "file"]).expect(0);
    let records = std::fs::read(&exported).expect("exported");
    let mut places = vec![0];
    while let Some(length) = records.get(places[places.len() - 1]..).and_then(|r| r.first_chunk()) {
        places.push(places[places.len() - 1] + 2 + usize::from(u16::from_be_bytes(*length)));
    }
    let (from, to) = (places[9], places[10]);
    let mut altered = records.clone();
    altered[to - 1] ^= 1;
    std::fs::write(&exported, &altered).expect("written");
    let copy = path("altered");
    rings.run(["log", "import", &exported, &copy, "--format", "file"]).expect(0);
    let found = audit(&format!("log:{copy}")).expect(3);
    assert!(found.err().contains("entry #10 is not the one"), "{}", found.err());
    std::fs::write(&exported, [&records[..from], &records[to..]].concat()).expect("written");
    let copy = path("shorter");
    rings.run(["log", "import", &exported, &copy, "--format", "file"]).expect(0);
    let found = audit(&format!("log:{copy}")).expect(3);
    assert!(found.err().contains("entry #10 is not the one"), "{}", found.err());
}

#[test]
fn all_sides_agree_until_one_is_altered() {
    let rings = Rings::new();
    day(&rings);
    let path = |name: &str| rings.path().join(name).to_str().expect("text").to_owned();
    let (desk, other, state) = (path("desk.orders"), path("other.orders"), path("state.json"));
    let sides = ["--client", &desk, "--client", &other, "--state", &state];
    let clean = reconcile(&rings, &sides).expect(0).json();
    assert_eq!((&clean["clean"], &clean["clients"]), (&true.into(), &2.into()), "{clean:#}");
    assert_eq!((&clean["orders"], &clean["fills"]), (&6.into(), &2.into()), "{clean:#}");
    // A record without what the client sent last.
    let whole = std::fs::read(&other).expect("a record");
    std::fs::write(&other, &whole[..whole.len() - 10]).expect("written");
    let torn = reconcile(&rings, &sides).expect(3).json();
    assert_eq!(torn["differences"].as_array().expect("named").len(), 1, "{torn:#}");
    assert_eq!(torn["differences"][0]["client"], 3, "{torn:#}");
    std::fs::write(&other, whole).expect("written");
    // An engine that had another position, and one with another opening book.
    let text = std::fs::read_to_string(&state).expect("a state");
    std::fs::write(&state, text.replace("\"quantity\": -4", "\"quantity\": -5")).expect("written");
    let altered = reconcile(&rings, &sides).expect(3).json();
    let what = altered["differences"][0]["what"].as_str().expect("text");
    assert!(what.contains("the engine that ran") && what.contains("-5"), "{altered:#}");
    std::fs::write(&state, text).expect("written");
    let book = path("book.txt");
    std::fs::write(&book, "7 sell 18720 3\n").expect("written");
    let seeded = [&sides[..], &["--seed-book", &book]].concat();
    let other = reconcile(&rings, &seeded).expect(3).json();
    assert!(other["others"].to_string().contains("is not what"), "{other:#}");
}

#[test]
fn generators_trade_by_a_real_feed() {
    const SAMPLE: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../data/moex-forts-2013/increment_a.binfile");
    let rings = Rings::new();
    let engine = leading(&rings, &[]);
    let client = |id: &str, stream: &str, more: &[&str]| {
        let to = format!("shm:{stream}");
        let client = ["order", "client", "--id", id, "--to", &to, "--from", "shm:sequenced"];
        rings.start_all(&[&client[..], &["--json"], more].concat())
    };
    client("1", "ops", &["--setup-data", SAMPLE]).end().expect(0);
    let trade = ["--generate", "1000", "--data", SAMPLE, "--share"];
    let traders = [("2", "desk", "1/2"), ("3", "other", "2/2")]
        .map(|(id, stream, share)| client(id, stream, &[&trade[..], &[share]].concat()));
    for trader in traders {
        let account = trader.end().expect(0).json();
        assert_eq!((&account["commands"], &account["refused"]), (&1000.into(), &0.into()));
        assert!(account["accepted"].as_u64() > Some(100), "{account}");
        assert!(account["fills"].as_u64() > Some(0), "{account}");
        let latency = &account["latency"];
        assert!(latency["p50_ns"].as_u64() <= latency["max_ns"].as_u64(), "{account}");
    }
    let account = stopped(engine);
    assert_eq!(account["open_orders"], 0, "{account}");
}

/// The messages of a file of records.
fn messages_of(file: &[u8]) -> Vec<Vec<u8>> {
    let (mut messages, mut rest) = (Vec::new(), file);
    while let Some((length, tail)) = rest.split_first_chunk() {
        let (message, tail) = tail.split_at(usize::from(u16::from_be_bytes(*length)));
        messages.push(message.to_vec());
        rest = tail;
    }
    messages
}

/// Where in a stream client 2's first three commands are, 0 the first message.
fn first_commands(messages: &[Vec<u8>]) -> [usize; 3] {
    let is_command = |message: &[u8]| message[0] == 1 && message[2..4] == [2, 0];
    let mut commands = (0..messages.len()).filter(|&index| is_command(&messages[index]));
    [(); 3].map(|()| commands.next().expect("a command"))
}

#[test]
fn what_is_planted_in_the_stream_is_found_and_named() {
    let rings = Rings::new();
    day(&rings);
    let path = |name: &str| rings.path().join(name).to_str().expect("text").to_owned();
    let exported = path("day.records");
    rings.run(["log", "export", &path("log"), &exported, "--format", "file"]).expect(0);
    let sound = messages_of(&std::fs::read(&exported).expect("exported"));
    let [first, second, next] = first_commands(&sound);
    let time = sound.iter().position(|message| message[0] == 4).expect("time passes");
    // As many messages as before: the numbers of the others stay.
    let plant = |what: &str| {
        let mut messages = sound.clone();
        match what {
            "missing" => messages[second] = sound[time].clone(),
            "duplicated" => messages[time] = sound[first].clone(),
            // The lowest byte of the price: stamp, header, the client's number, and then it.
            "altered" => messages[first][32 + 8 + 8] ^= 1,
            "reordered" => messages.swap(first, second),
            _ => unreachable!("four kinds"),
        }
        messages
    };
    for (what, place, named) in [
        // It should have been in front of the client's next one.
        ("missing", next, "command 2 (NewOrder of order 2) was sent, and is not in the stream"),
        ("duplicated", time.max(first), "is in the stream twice"),
        ("altered", first, "was altered: price"),
        ("reordered", first, "is in front of command"),
    ] {
        let mut file = Vec::new();
        for message in plant(what) {
            file.extend_from_slice(&(message.len() as u16).to_be_bytes());
            file.extend_from_slice(&message);
        }
        std::fs::write(&exported, file).expect("written");
        let log = path(what);
        rings.run(["log", "import", &exported, &log, "--format", "file"]).expect(0);
        let stream = format!("log:{log}");
        let desk = path("desk.orders");
        let arguments = ["order", "reconcile", "--stream", &stream, "--client", &desk];
        let found = rings.run(arguments).expect(3);
        let line = found.out().lines().find(|line| line.contains(named));
        let line = line.unwrap_or_else(|| panic!("{what}: {}", found.out()));
        assert!(line.starts_with(&format!("#{} client 2: ", place + 1)), "{what}: {line}");
    }
}

#[test]
fn an_engine_made_from_a_snapshot_agrees_as_well() {
    let rings = Rings::new();
    let path = |name: &str| rings.path().join(name).to_str().expect("text").to_owned();
    let engine = leading(&rings, &[]);
    let snapshots = ["--snapshots", &path("snapshots"), "--snapshot-records", "10"];
    let mut standby = self::engine(&rings, "standby", &snapshots);
    standby.await_error_line("stands by: another leads, term 1");
    let log = format!("log:{}", path("log"));
    let record = ["record", "shm:sequenced?wait=yield", &log, "--json", "--follow"];
    let mut recorder = rings.start(record);
    set_up(&rings);
    trade(&rings, "2", "desk", "sell 10 AAPL @ 187.25\nsell 5 AAPL @ 187.30\n").expect(0);
    while !rings.path().join("snapshots").exists() {
        std::thread::yield_now(); // the standby has fallen behind
    }
    trade(&rings, "3", "other", "buy 4 AAPL @ 187.25\n").expect(0);
    stopped(engine);
    standby.await_error_line("leads: term 2");
    trade(&rings, "3", "other", "buy 4 AAPL @ 187.25\n").expect(0);
    let account = stopped(standby);
    assert!(account["snapshots"].as_u64() > Some(0), "{account}");
    let end = account["next_sequence"].as_u64().expect("a number");
    let recorded = || gapless::log::survey(&rings.path().join("log")).expect("a log");
    while recorded().last().map_or(0, |segment| segment.next_sequence) < end {
        std::thread::yield_now();
    }
    recorder.signal(Signal::SIGINT);
    recorder.end().expect(0);
    let whole = reconcile(&rings, &[]).expect(0).json();
    let rest = reconcile(&rings, &["--snapshot", &path("snapshots")]).expect(0).json();
    assert_eq!(whole["state"], rest["state"], "{rest:#}");
    assert!(rest["replayed"].as_u64() < whole["replayed"].as_u64(), "{rest:#}");
    assert_eq!((&rest["engine_orders"], &rest["fills"]), (&2.into(), &4.into()), "{rest:#}");
    let nothing = reconcile(&rings, &["--snapshot", &path("nowhere")]).expect(1);
    assert!(nothing.err().contains("no snapshot"), "{}", nothing.err());
}

#[test]
fn a_client_that_comes_late_is_told_what_it_has_open() {
    let rings = Rings::new();
    let mut arguments = vec!["order", "engine", "--out", "shm:sequenced?capacity=16K&wait=yield"];
    for client in CLIENTS {
        arguments.extend(["--client", client]);
    }
    let mut engine = rings.start_all(&[&arguments[..], &["--json"]].concat());
    engine.await_error_line("leads: term");
    set_up(&rings);
    trade(&rings, "2", "desk", "sell 10 AAPL @ 187.25\n").expect(0);
    let ring = gapless::shm::Inspector::open_file(&rings.file("sequenced")).expect("a ring");
    let end = ring.snapshot().next_sequence;
    while ring.snapshot().oldest_sequence < end {
        std::thread::yield_now(); // time passes, and overwrites what was
    }
    let late = trade(&rings, "2", "desk", "sell 10 AAPL @ 187.25\ncancel 1\nlist\n").expect(3);
    assert!(late.err().contains("?log="), "{}", late.err());
    let lines: Vec<&str> = late.out().lines().collect();
    assert!(lines[0].starts_with("open 1: sell 10 "), "{lines:?}");
    assert_eq!((lines[1], lines[3]), ("1 open, the last was 1", "0 open, the last was 1"));
    assert!(lines[2].starts_with("cancelled 1: 10 "), "{lines:?}");
    stopped(engine);
}
