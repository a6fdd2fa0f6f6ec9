//! AF_XDP: datagrams between a ring of the interface's and ours, past the kernel's stack.

#[expect(unsafe_code, reason = "bpf(2) takes pointers")]
mod bpf;
mod checksum;
#[cfg(test)]
mod fixture;
pub mod frame;
#[cfg(test)]
mod namespace;
mod netlink;
mod program;
mod steering;
