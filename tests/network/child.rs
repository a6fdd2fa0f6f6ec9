//! Processes that can be killed: the test's own program, run again as a publisher or a subscriber
//! on one of the hosts.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use gapless::net::{Backend, Datagrams, Network};
use gapless::{Publisher, Subscriber};

use crate::hosts::{Hosts, enter};

const HOST: &str = "GAPLESS_TEST_HOST";
const ROLE: &str = "GAPLESS_TEST_ROLE";
const ADDRESS: &str = "GAPLESS_TEST_ADDRESS";

/// The bytes of a message, by its number: from 8 to 207.
pub(crate) fn payload(sequence: u64) -> Vec<u8> {
    let len = 8 + (sequence * 7919 % 200) as usize;
    sequence.to_be_bytes().into_iter().cycle().take(len).collect()
}

/// Checks that a network is on the back end that its address asks for, for the socket of its line.
pub(crate) fn is_as_asked(network: &Network, line: usize, address: &str) {
    let (backend, notes) = (network.backend(), network.notes());
    let (_, asked) = address.rsplit_once("backend=").unwrap();
    match (network, asked) {
        (Network::Xdp(network), "xdp") => assert!(network.is_steered(line), "{notes:?}"),
        (_, "socket") => assert_eq!(backend, Backend::Socket),
        (_, "uring") => assert_eq!(backend, Backend::Uring, "{notes:?}"),
        _ => panic!("{asked} was asked for, it is {backend:?}: {notes:?}"),
    }
}

/// A process that plays a role. It dies with this one: its input ends then.
pub(crate) struct Player {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Player {
    /// Starts one on a host. `test` is the test that calls [`play`] first of all.
    pub(crate) fn start(test: &str, hosts: &Hosts, host: usize, role: &str, address: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(HOST, hosts.path(host))
            .env(ROLE, role)
            .env(ADDRESS, address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Self { process, input, output: BufReader::new(output) }
    }

    /// Tells a publisher to publish up to this message.
    pub(crate) fn publish(&mut self, last: u64) {
        writeln!(self.input, "{last}").unwrap();
    }

    /// Waits for the process to say how far it is.
    pub(crate) fn at(&mut self) -> u64 {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the process has ended");
            // The test harness has its say, too, and on the same line.
            if let Some((_, number)) = line.split_once("at: ") {
                return number.trim().parse().unwrap();
            }
        }
    }

    /// `kill -9`, and waits until it is dead.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Plays the role that this process was started for, if it was: never returns then.
pub(crate) fn play() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let address = std::env::var(ADDRESS).unwrap();
    enter(&std::env::var(HOST).unwrap());
    let (orders, incoming) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            orders.send(line.unwrap().parse().unwrap()).unwrap();
        }
        std::process::exit(0)
    });
    match role.as_str() {
        "publisher" => publish(&address, &incoming),
        "subscriber" => subscribe(&address),
        other => panic!("{other}"),
    }
}

fn publish(address: &str, orders: &Receiver<u64>) {
    let mut publisher = Publisher::open(address).unwrap();
    is_as_asked(publisher.sender().unwrap().network(), 0, address);
    println!("at: {}", publisher.next_sequence() - 1);
    let mut last = 0;
    loop {
        if publisher.next_sequence() <= last {
            let next = publisher.next_sequence();
            // If the ring is full, it is published in the next turn.
            let _ = publisher.try_publish(&payload(next));
            if publisher.next_sequence() > last {
                println!("at: {last}");
            }
        }
        publisher.poll().unwrap();
        if let Ok(order) = orders.try_recv() {
            last = order;
        }
    }
}

fn subscribe(address: &str) {
    let mut subscriber = Subscriber::open(address).unwrap();
    is_as_asked(subscriber.inlet().unwrap().network(), 0, address);
    loop {
        subscriber.poll(64, |message| println!("at: {}", message.sequence)).unwrap();
    }
}
