//! netfilter by its own netlink: which generation the rules are in, and which datagram flows are remembered.
//!
//! Message and attribute numbers are those of `linux/netfilter/nfnetlink.h`, `nf_tables.h` and
//! `nfnetlink_conntrack.h`. Numbers in attributes are big-endian, in headers the machine's own.

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE: u16 = 0x3fff;

const GETGEN: u16 = (10 << 8) | 16;
const GEN_ID: u16 = 1;
const CONNTRACK_GET: u16 = (1 << 8) | 1;
const CONNTRACK_DELETE: u16 = (1 << 8) | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IP_SOURCE: u16 = 1;
const IP_DESTINATION: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_SOURCE: u16 = 2;
const PROTOCOL_DESTINATION: u16 = 3;
const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const UDP: u8 = 17;

/// A flow of datagrams as the kernel remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Where its first datagram was sent to.
    pub asked: (Ipv4Addr, u16),
    /// Who answers.
    pub answers: (Ipv4Addr, u16),
}

/// A socket to netfilter in one network namespace.
#[derive(Debug)]
pub struct Netfilter {
    socket: Socket,
    sequence: u32,
}

impl Netfilter {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// A number that changes with every change of nftables' rules, whoever makes it.
    pub fn generation(&mut self) -> io::Result<u32> {
        let answers = self.ask(GETGEN, NLM_F_ACK, AF_UNSPEC, &[])?;
        let id = answers.iter().find_map(|answer| {
            let id = attributes(answer).remove(&GEN_ID)?;
            Some(u32::from_be_bytes(id.try_into().ok()?))
        });
        id.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Makes the kernel forget those flows of datagrams that `choose` picks; their next datagram is looked at anew.
    pub fn forget_flows(&mut self, choose: impl Fn(Flow) -> bool) -> io::Result<usize> {
        let entries = self.ask(CONNTRACK_GET, NLM_F_DUMP, AF_INET, &[])?;
        let mut forgotten = 0;
        for entry in entries {
            let attributes = attributes(&entry);
            let Some(original) = attributes.get(&TUPLE_ORIGINAL) else {
                continue;
            };
            let reply = attributes.get(&TUPLE_REPLY).copied().unwrap_or_default();
            let Some(flow) = flow(original, reply) else {
                continue;
            };
            if !choose(flow) {
                continue;
            }
            let which = attribute(TUPLE_ORIGINAL | NLA_F_NESTED, original);
            match self.ask(CONNTRACK_DELETE, NLM_F_ACK, AF_INET, &which) {
                Ok(_) => forgotten += 1,
                // It ended by itself meanwhile.
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                Err(err) => return Err(err),
            }
        }
        Ok(forgotten)
    }

    /// Sends a request and gives the bodies of the answers, after their headers.
    fn ask(&mut self, kind: u16, flags: u16, family: u8, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER + FAMILY_HEADER + body.len()).map_err(io::Error::other)?;
        let mut request = Vec::new();
        request.extend(length.to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend(0u32.to_ne_bytes());
        request.extend([family, 0, 0, 0]);
        request.extend(body);
        self.socket.send(&request, 0)?;
        let mut answers = Vec::new();
        loop {
            let (received, _) = self.socket.recv_from_full()?;
            if self.take(&received, &mut answers)? {
                return Ok(answers);
            }
        }
    }

    /// Reads the messages of one datagram; true at the end of the answer.
    fn take(&self, mut received: &[u8], answers: &mut Vec<Vec<u8>>) -> io::Result<bool> {
        while let Some(header) = received.first_chunk::<HEADER>() {
            let [l0, l1, l2, l3, k0, k1, _, _, s0, s1, s2, s3, ..] = *header;
            let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
            let body = received.get(HEADER..length).ok_or(io::ErrorKind::InvalidData)?;
            let ours = u32::from_ne_bytes([s0, s1, s2, s3]) == self.sequence;
            match u16::from_ne_bytes([k0, k1]) {
                NLMSG_ERROR if ours => {
                    let code = body.first_chunk().ok_or(io::ErrorKind::InvalidData)?;
                    return match i32::from_ne_bytes(*code) {
                        0 => Ok(true),
                        code => Err(io::Error::from_raw_os_error(-code)),
                    };
                }
                NLMSG_DONE if ours => return Ok(true),
                _ if ours => answers.push(body.get(FAMILY_HEADER..).unwrap_or_default().to_vec()),
                _ => {}
            }
            received = received.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(false)
    }
}

/// The attributes of a body by their type.
fn attributes(mut body: &[u8]) -> BTreeMap<u16, &[u8]> {
    let mut found = BTreeMap::new();
    while let Some([l0, l1, t0, t1]) = body.first_chunk::<4>().copied() {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let Some(value) = body.get(4..length) else { break };
        found.insert(u16::from_ne_bytes([t0, t1]) & NLA_TYPE, value);
        body = body.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("a tuple of addresses and ports is short");
    let mut bytes = Vec::from(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A flow of IPv4 datagrams, or nothing for other protocols.
fn flow(original: &[u8], reply: &[u8]) -> Option<Flow> {
    Some(Flow {
        asked: end(original, IP_DESTINATION, PROTOCOL_DESTINATION)?,
        answers: end(reply, IP_SOURCE, PROTOCOL_SOURCE)?,
    })
}

fn end(tuple: &[u8], address: u16, port: u16) -> Option<(Ipv4Addr, u16)> {
    let tuple = attributes(tuple);
    let ip = attributes(tuple.get(&TUPLE_IP)?);
    let protocol = attributes(tuple.get(&TUPLE_PROTOCOL)?);
    if *protocol.get(&PROTOCOL_NUMBER)? != [UDP] {
        return None;
    }
    let address: [u8; 4] = (*ip.get(&address)?).try_into().ok()?;
    let port: [u8; 2] = (*protocol.get(&port)?).try_into().ok()?;
    Some((Ipv4Addr::from(address), u16::from_be_bytes(port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tuple_is_read_whatever_is_cut_off() {
        let ip = [
            attribute(IP_SOURCE, &[10, 0, 0, 1]),
            attribute(IP_DESTINATION, &[10, 0, 0, 2]),
        ];
        let protocol = [
            attribute(PROTOCOL_NUMBER, &[UDP]),
            attribute(PROTOCOL_SOURCE, &1000u16.to_be_bytes()),
            attribute(PROTOCOL_DESTINATION, &53u16.to_be_bytes()),
        ];
        let tuple = [
            attribute(TUPLE_IP | NLA_F_NESTED, &ip.concat()),
            attribute(TUPLE_PROTOCOL | NLA_F_NESTED, &protocol.concat()),
        ]
        .concat();
        let found = flow(&tuple, &tuple).unwrap();
        assert_eq!(found.asked, (Ipv4Addr::new(10, 0, 0, 2), 53));
        assert_eq!(found.answers, (Ipv4Addr::new(10, 0, 0, 1), 1000));
        for length in 0..tuple.len() {
            // Whatever a future kernel sends, nothing panics.
            let _cut = flow(&tuple[..length], &tuple);
        }
    }
}
