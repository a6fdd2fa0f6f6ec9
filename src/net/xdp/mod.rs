//! AF_XDP: datagrams between a ring of the interface's and ours, past the kernel's stack.

mod attributes;
#[expect(unsafe_code, reason = "bpf(2) takes pointers")]
mod bpf;
mod channels;
mod conversation;
mod frame;
mod members;
#[cfg(test)]
mod namespace;
mod netlink;
mod program;
mod steering;
