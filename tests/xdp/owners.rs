//! Who has the interface: a process that is killed, one beside it, one without the right.

use gapless::net::{Backend, Datagrams, NetError, Network, Run};

use crate::child::{Player, play};
use crate::ends::{at, collect, end, hosts, on, plain, refusal, send, steered, until};
use crate::hosts::Hosts;

const PORT: u16 = 9_500;
const STREAM: &str = "udp:239.78.3.1:9500?iface=eth0&heartbeat=10ms&backend=xdp";

fn has_a_program(hosts: &Hosts, host: usize) -> bool {
    hosts.ip(host, "link show eth0\n").contains("xdp")
}

/// `kill -9` leaves nothing behind, and the next one starts at once, as often as one likes. (That
/// it is on AF_XDP again, the player sees to.)
#[test]
fn a_killed_process_leaves_nothing_behind() {
    play();
    let Some(hosts) = hosts(2) else { return };
    let start = || {
        Player::start(
            "owners::a_killed_process_leaves_nothing_behind",
            &hosts,
            0,
            "publisher",
            STREAM,
        )
    };
    for _ in 0..10 {
        let mut owner = start();
        assert_eq!(owner.at(), 0);
        owner.publish(100);
        assert_eq!(owner.at(), 100);
        assert!(has_a_program(&hosts, 0));
        owner.kill();
    }
    until("the program to go", || !has_a_program(&hosts, 0));
    assert!(steered(&end(&hosts, 0, &[on(0, false, PORT)]), 0));
}

/// The queues are one process's. Another is told, and the first is not disturbed.
#[test]
fn a_second_process_is_told_who_was_first() {
    play();
    let Some(hosts) = hosts(2) else { return };
    let test = "owners::a_second_process_is_told_who_was_first";
    let mut owner = Player::start(test, &hosts, 0, "publisher", STREAM);
    assert_eq!(owner.at(), 0);
    match refusal(&hosts, 0, &on(0, false, PORT)) {
        NetError::Unavailable { backend: "AF_XDP", reason } => {
            assert!(reason.contains("another process has queue 0 of eth0"), "{reason}");
        }
        other => panic!("{other}"),
    }
    // What was tried took nothing away.
    owner.publish(100);
    assert_eq!(owner.at(), 100);
    assert!(has_a_program(&hosts, 0));
    owner.kill();
    assert!(steered(&end(&hosts, 0, &[on(0, false, PORT)]), 0));
}

/// Gives up this thread's capabilities, whatever the process has.
fn give_up_privilege() {
    // Version 3 of the interface, this thread, no capability of any kind.
    let (header, none) = ([0x2008_0522_u32, 0], [0_u32; 6]);
    // SAFETY: the kernel reads eight bytes of `header` and 24 of `none`.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn without_the_right_there_are_sockets() {
    let Some(hosts) = hosts(2) else { return };
    let mut receiver = at(&hosts, 1, || {
        give_up_privilege();
        let options = on(1, false, PORT).receive_buffer_bytes(None);
        match Network::open(Backend::Xdp).unwrap().add(&options).unwrap_err() {
            NetError::Unavailable { backend: "AF_XDP", reason } => {
                assert!(reason.contains("CAP_BPF") && reason.contains("root"), "{reason}");
            }
            other => panic!("{other}"),
        }
        let mut network = Network::prefer(Backend::Xdp);
        assert_eq!(network.add(&options).unwrap(), 0);
        let notes = network.notes().join("; ");
        assert!(notes.contains("CAP_BPF") && notes.contains("left to the kernel"), "{notes}");
        assert!(!steered(&network, 0));
        network
    });
    let there = receiver.local_address(0);
    let mut sender = plain(&hosts, 0, &[on(0, false, 0).connect(there)]);
    send(&mut sender, 0, &[Run::one(b"by sockets")]);
    assert_eq!(collect(&mut receiver, 1), [b"by sockets"]);
    assert!(!has_a_program(&hosts, 1));
}
