//! Links, addresses and routes by rtnetlink, blocking: each request waits for the kernel's answer.
//!
//! A netlink socket stays in the network namespace it was opened in, whichever thread uses it.

use super::cidr::Cidr;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd as _};

/// One link as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Interface index, unique in its namespace.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Index of the bridge it is a port of.
    pub controller: Option<u32>,
}

/// An IPv4 address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assigned {
    /// Interface index.
    pub link: u32,
    /// The address.
    pub address: Ipv4Addr,
    /// Length of its network, in bits.
    pub prefix: u8,
}

/// A socket to the kernel's rtnetlink of one network namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// The hardware address that belongs to `address`: locally administered, the same at each start, so that no
/// neighbour's cache is ever wrong.
pub fn hardware_address(address: Ipv4Addr) -> Vec<u8> {
    let [a, b, c, d] = address.octets();
    vec![0x0a, 0x58, a, b, c, d]
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The link called `name`.
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.ask(RouteNetlinkMessage::GetLink(message), NLM_F_ACK) {
            Ok(answers) => Ok(answers.iter().find_map(read_link)),
            Err(err) if err.raw_os_error() == Some(nix::libc::ENODEV) => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// All links of the namespace.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let answers = self.ask(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        Ok(answers.iter().filter_map(read_link).collect())
    }

    /// All IPv4 addresses of the namespace.
    pub fn addresses(&mut self) -> io::Result<Vec<Assigned>> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        let answers = self.ask(RouteNetlinkMessage::GetAddress(message), NLM_F_DUMP)?;
        Ok(answers.iter().filter_map(read_address).collect())
    }

    /// Makes a bridge; its hardware address is fixed, else it would follow its ports' and cut their traffic.
    pub fn add_bridge(&mut self, name: &str, address: Ipv4Addr) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(hardware_address(address)),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ];
        self.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Makes a pair of virtual interfaces: `name` here as a port of `bridge`, and `peer` in the namespace `netns`.
    pub fn add_veth(
        &mut self,
        name: &str,
        bridge: u32,
        peer: &str,
        peer_address: Ipv4Addr,
        netns: impl AsFd,
    ) -> io::Result<()> {
        let mut other = LinkMessage::default();
        other.attributes = vec![
            LinkAttribute::IfName(peer.to_owned()),
            LinkAttribute::Address(hardware_address(peer_address)),
            LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd()),
        ];
        let mut message = up(LinkMessage::default());
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Controller(bridge),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
            ]),
        ];
        self.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Lets a bridge port send back what came in by it: a pod that calls its own Service.
    pub fn set_hairpin(&mut self, port: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = port;
        message.attributes = vec![LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
        ])];
        self.change(RouteNetlinkMessage::NewLink(message), 0)
    }

    /// Brings a link up.
    pub fn set_up(&mut self, link: u32) -> io::Result<()> {
        let mut message = up(LinkMessage::default());
        message.header.index = link;
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Removes a link; one that is gone is no error. The other end of a pair goes with it.
    pub fn remove_link(&mut self, link: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        match self.change(RouteNetlinkMessage::DelLink(message), 0) {
            Err(err) if err.raw_os_error() == Some(nix::libc::ENODEV) => Ok(()),
            done => done,
        }
    }

    /// Gives a link an address; the same one again is no error.
    pub fn add_address(&mut self, link: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.index = link;
        message.header.prefix_len = prefix;
        message.attributes = vec![
            AddressAttribute::Local(IpAddr::V4(address)),
            AddressAttribute::Address(IpAddr::V4(address)),
        ];
        self.change(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    /// Routes `to` out of `link`, by `gateway` where given; replaces an equal route.
    pub fn add_route(&mut self, to: Cidr, link: u32, gateway: Option<Ipv4Addr>) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = to.prefix();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        message.header.scope = if gateway.is_some() {
            RouteScope::Universe
        } else {
            RouteScope::Link
        };
        message.attributes = vec![
            RouteAttribute::Destination(RouteAddress::Inet(to.at(0))),
            RouteAttribute::Oif(link),
        ];
        if let Some(gateway) = gateway {
            message
                .attributes
                .push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
        }
        self.change(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.ask(message, NLM_F_ACK | flags).map(drop)
    }

    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut buffer = vec![0; request.buffer_len()];
        request.serialize(&mut buffer);
        self.socket.send(&buffer, 0)?;
        let mut answers = Vec::new();
        loop {
            let (received, _) = self.socket.recv_from_full()?;
            if self.take(&received, &mut answers)? {
                return Ok(answers);
            }
        }
    }

    /// Reads the messages of one datagram; true at the end of the answer.
    fn take(&self, mut received: &[u8], answers: &mut Vec<RouteNetlinkMessage>) -> io::Result<bool> {
        while !received.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(received)
                .map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err.to_string()))?;
            let length = usize::try_from(message.header.length).expect("a length that was just read");
            let ours = message.header.sequence_number == self.sequence;
            match message.payload {
                NetlinkPayload::Error(error) if ours => {
                    return match error.code {
                        Some(_) => Err(error.to_io()),
                        None => Ok(true),
                    };
                }
                NetlinkPayload::Done(_) if ours => return Ok(true),
                NetlinkPayload::InnerMessage(inner) if ours => answers.push(inner),
                _ => {}
            }
            // Messages in one datagram are aligned to four bytes (RFC 3549).
            received = received.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(false)
    }
}

fn up(mut message: LinkMessage) -> LinkMessage {
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

fn read_link(message: &RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(link) = message else {
        return None;
    };
    let mut name = None;
    let mut controller = None;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Controller(index) => controller = Some(*index),
            _ => {}
        }
    }
    Some(Link {
        index: link.header.index,
        name: name?,
        controller,
    })
}

fn read_address(message: &RouteNetlinkMessage) -> Option<Assigned> {
    let RouteNetlinkMessage::NewAddress(found) = message else {
        return None;
    };
    found.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(Assigned {
            link: found.header.index,
            address: *address,
            prefix: found.header.prefix_len,
        }),
        _ => None,
    })
}
