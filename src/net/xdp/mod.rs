//! AF_XDP: datagrams between a ring of the interface's and ours, past the kernel's stack.

#[expect(unsafe_code, reason = "bpf(2) takes pointers")]
mod bpf;
mod checksum;
pub mod frame;
mod netlink;
mod program;
mod steering;
