//! The egress guard: which addresses this process may call.
//!
//! Every address is judged **after** name resolution and the connection goes to the judged address only, so a name that
//! changes its mind between check and connect (DNS rebinding) gains nothing. Without an entry in `WEIR_EGRESS_ALLOW`
//! nothing but public unicast addresses is reachable. It must never fail open: what it does not recognise is refused.
//! Which *hosts* a connector may call is judged elsewhere (`perform::target`); both must say yes.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use thiserror::Error;

/// Name of the setting that opens private addresses.
pub const EGRESS_SETTING: &str = "WEIR_EGRESS_ALLOW";

/// What `WEIR_EGRESS_ALLOW` permits beyond public addresses. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct EgressPolicy {
    allowed: Arc<Allowed>,
}

#[derive(Debug, Default)]
struct Allowed {
    hosts: HashSet<String>,
    networks: Vec<IpNet>,
}

/// An entry of `WEIR_EGRESS_ALLOW` that is neither a host name nor a network.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{EGRESS_SETTING} entry `{entry}` is neither a host name nor a network such as 10.0.0.0/8 ({hint})")]
pub struct EgressConfigError {
    /// The entry as it was given.
    pub entry: String,
    /// What to write instead.
    pub hint: &'static str,
}

/// A call that the guard refused. No byte was sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{host} is at {ip}, {reason}; such addresses are refused unless {setting} names the host or its network")]
pub struct EgressRefused {
    /// The host as the URL names it.
    pub host: String,
    /// The address it resolved to, or that stood in the URL.
    pub ip: IpAddr,
    /// The setting that would permit it: always [`EGRESS_SETTING`].
    pub setting: &'static str,
    /// What kind of address it is.
    pub reason: AddressKind,
}

/// Why an address is not an ordinary public one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressKind {
    /// 127.0.0.0/8, `::1`.
    Loopback,
    /// 10/8, 172.16/12, 192.168/16, `fc00::/7`, `fec0::/10`.
    Private,
    /// 169.254/16, `fe80::/10`.
    LinkLocal,
    /// Addresses under which clouds hand out machine credentials.
    Metadata,
    /// 100.64/10: shared address space of carriers and overlays (RFC 6598).
    CarrierNat,
    /// 224/4, `ff00::/8`.
    Multicast,
    /// 0.0.0.0/8, `::`.
    Unspecified,
    /// Documentation, benchmarking, tunnels and everything not handed out as public unicast.
    Reserved,
}

impl fmt::Display for AddressKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AddressKind::Loopback => "a loopback address",
            AddressKind::Private => "a private address",
            AddressKind::LinkLocal => "a link-local address",
            AddressKind::Metadata => "a cloud metadata address",
            AddressKind::CarrierNat => "a carrier-grade NAT address",
            AddressKind::Multicast => "a multicast address",
            AddressKind::Unspecified => "an unspecified address",
            AddressKind::Reserved => "a reserved address",
        })
    }
}

impl EgressPolicy {
    /// Reads the entries of `WEIR_EGRESS_ALLOW`: host names, addresses, networks. Blank entries are skipped.
    ///
    /// # Errors
    /// An entry that is none of these, among them URLs and `host:port`.
    pub fn new(allow: &[String]) -> Result<Self, EgressConfigError> {
        let mut allowed = Allowed::default();
        for entry in allow {
            let text = entry.trim();
            if text.is_empty() {
                continue;
            }
            let bare = text
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
                .unwrap_or(text);
            if let Ok(network) = bare.parse::<IpNet>() {
                allowed.networks.push(network);
            } else if let Ok(ip) = bare.parse::<IpAddr>() {
                allowed.networks.push(IpNet::from(ip));
            } else {
                allowed.hosts.insert(host_name(text)?);
            }
        }
        Ok(EgressPolicy {
            allowed: Arc::new(allowed),
        })
    }

    /// Whether a connection to `ip`, reached under the name `host`, may be opened.
    ///
    /// # Errors
    /// [`EgressRefused`] when the address is not public and no entry permits it.
    pub fn check_ip(&self, host: &str, ip: IpAddr) -> Result<(), EgressRefused> {
        let Some(reason) = classify(ip) else {
            return Ok(());
        };
        let embedded = match ip {
            IpAddr::V6(v6) => embedded_v4(v6).map(IpAddr::V4),
            IpAddr::V4(_) => None,
        };
        let in_network = |ip: IpAddr| self.allowed.networks.iter().any(|net| net.contains(&ip));
        if in_network(ip) || embedded.is_some_and(in_network) || self.host_is_allowed(host) {
            return Ok(());
        }
        Err(EgressRefused {
            host: host.to_owned(),
            ip,
            setting: EGRESS_SETTING,
            reason,
        })
    }

    fn host_is_allowed(&self, host: &str) -> bool {
        if self.allowed.hosts.is_empty() {
            return false;
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        self.allowed.hosts.contains(&host.to_ascii_lowercase())
    }
}

fn host_name(text: &str) -> Result<String, EgressConfigError> {
    let refuse = |hint| {
        Err(EgressConfigError {
            entry: text.to_owned(),
            hint,
        })
    };
    if text.contains("://") {
        return refuse("give the host alone, without scheme and path");
    }
    if text.contains(':') {
        return refuse("give the host alone, without a port");
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let label_ok = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if !name.split('.').all(label_ok) {
        return refuse("host names are made of letters, digits, dots and hyphens");
    }
    // `10.0.0` and `10.0.0.0/33` look like networks that were mistyped, not like names.
    if name.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return refuse("write networks in full");
    }
    Ok(name)
}

/// What kind of non-public address this is; `None` for public unicast.
///
/// Source: the IANA special-purpose address registries (as of 2026-11).
fn classify(ip: IpAddr) -> Option<AddressKind> {
    match ip {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) => classify_v6(v6),
    }
}

fn classify_v4(ip: Ipv4Addr) -> Option<AddressKind> {
    let [a, b, c, d] = ip.octets();
    Some(match (a, b, c, d) {
        (0, ..) => AddressKind::Unspecified,
        (169, 254, 169, 254) | (169, 254, 170, 2) | (100, 100, 100, 200) | (192, 0, 0, 192) | (168, 63, 129, 16) => {
            AddressKind::Metadata
        }
        (127, ..) => AddressKind::Loopback,
        (10, ..) | (172, 16..=31, ..) | (192, 168, ..) => AddressKind::Private,
        (100, 64..=127, ..) => AddressKind::CarrierNat,
        (169, 254, ..) => AddressKind::LinkLocal,
        (192, 0, 0 | 2, _) | (192, 88, 99, _) | (198, 18 | 19, ..) | (198, 51, 100, _) | (203, 0, 113, _) => {
            AddressKind::Reserved
        }
        (224..=239, ..) => AddressKind::Multicast,
        (240..=255, ..) => AddressKind::Reserved,
        _ => return None,
    })
}

fn classify_v6(ip: Ipv6Addr) -> Option<AddressKind> {
    let s = ip.segments();
    if ip.is_unspecified() {
        return Some(AddressKind::Unspecified);
    }
    if ip.is_loopback() {
        return Some(AddressKind::Loopback);
    }
    // fd00:ec2::254 (AWS) and fd20:ce::254 (Google).
    if matches!(
        s,
        [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254] | [0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x254]
    ) {
        return Some(AddressKind::Metadata);
    }
    // An address that carries an IPv4 address is no better than that one.
    if let Some(kind) = embedded_v4(ip).and_then(classify_v4) {
        return Some(kind);
    }
    match s[0] {
        0xfc00..=0xfdff | 0xfec0..=0xfeff => return Some(AddressKind::Private),
        0xfe80..=0xfebf => return Some(AddressKind::LinkLocal),
        0xff00..=0xffff => return Some(AddressKind::Multicast),
        _ => {}
    }
    // Mapped addresses and NAT64 with a public address inside reach that address.
    if ip.to_ipv4_mapped().is_some() || is_nat64(&s) {
        return None;
    }
    let documentation = (s[0] == 0x2001 && s[1] == 0x0db8) || (s[0] == 0x3fff && s[1] < 0x1000);
    // 2001::/23 holds Teredo, ORCHID and other protocol assignments; none is a provider's API.
    let protocol = s[0] == 0x2001 && s[1] < 0x0200;
    if (s[0] & 0xe000) != 0x2000 || documentation || protocol {
        return Some(AddressKind::Reserved);
    }
    None
}

/// `64:ff9b::/96` (RFC 6052): what IPv6-only networks with DNS64 use for every IPv4 host.
fn is_nat64(s: &[u16; 8]) -> bool {
    s[0] == 0x0064 && s[1] == 0xff9b && s[2..6] == [0, 0, 0, 0]
}

/// The IPv4 address inside a mapped, compatible, translated, NAT64, 6to4 or ISATAP address.
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = ip.segments();
    let join = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    let low = || join(s[6], s[7]);
    match s {
        // `::a.b.c.d` (compatible, deprecated), `::ffff:a.b.c.d` (mapped), `::ffff:0:a.b.c.d` (translated, RFC 2765).
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => Some(low()),
        // NAT64, the well-known prefix and the local-use one of RFC 8215.
        [0x0064, 0xff9b, 0 | 1, ..] => Some(low()),
        // 6to4 (RFC 3056).
        [0x2002, high, rest, ..] => Some(join(high, rest)),
        // ISATAP (RFC 5214): the interface id is 0000:5efe or 0200:5efe and the IPv4 address.
        [_, _, _, _, 0 | 0x0200, 0x5efe, ..] => Some(low()),
        _ => None,
    }
}

/// The resolver of the outgoing client: the system's answers without the refused addresses.
#[derive(Debug, Clone)]
pub(crate) struct GuardedResolver {
    policy: EgressPolicy,
}

impl GuardedResolver {
    pub(crate) fn new(policy: EgressPolicy) -> Self {
        GuardedResolver { policy }
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.policy.clone();
        Box::pin(async move {
            let host = name.as_str();
            // Port 0 is replaced by the connector with the URL's port.
            let found = tokio::net::lookup_host((host, 0)).await?;
            let mut permitted: Vec<SocketAddr> = Vec::new();
            let mut refused = None;
            for address in found {
                match policy.check_ip(host, address.ip()) {
                    Ok(()) => permitted.push(address),
                    Err(refusal) => refused = refused.or(Some(refusal)),
                }
            }
            match (permitted.is_empty(), refused) {
                (true, Some(refusal)) => Err(refusal.into()),
                _ => Ok(Box::new(permitted.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(entries: &[&str]) -> EgressPolicy {
        let entries: Vec<String> = entries.iter().map(|&e| e.to_owned()).collect();
        EgressPolicy::new(&entries).unwrap()
    }

    #[track_caller]
    fn check(ip: &str, expected: Option<AddressKind>) {
        let verdict = policy(&[]).check_ip("api.example.com", ip.parse().unwrap());
        assert_eq!(verdict.err().map(|refused| refused.reason), expected, "{ip}");
    }

    #[test]
    fn addresses_that_are_not_public_are_refused() {
        use AddressKind::*;
        for (ip, kind) in [
            ("127.0.0.1", Loopback),
            ("127.255.255.254", Loopback),
            ("10.1.2.3", Private),
            ("172.16.0.1", Private),
            ("172.31.255.255", Private),
            ("192.168.1.1", Private),
            ("169.254.1.1", LinkLocal),
            ("169.254.169.254", Metadata),
            ("169.254.170.2", Metadata),
            ("100.64.0.1", CarrierNat),
            ("100.127.255.255", CarrierNat),
            ("100.100.100.200", Metadata),
            ("168.63.129.16", Metadata),
            ("0.0.0.0", Unspecified),
            ("0.1.2.3", Unspecified),
            ("224.0.0.1", Multicast),
            ("255.255.255.255", Reserved),
            ("198.18.0.1", Reserved),
            ("203.0.113.9", Reserved),
            ("::", Unspecified),
            ("::1", Loopback),
            ("fd00:ec2::254", Metadata),
            ("fd12:3456::1", Private),
            ("fe80::1", LinkLocal),
            ("fec0::1", Private),
            ("ff02::1", Multicast),
            ("::ffff:127.0.0.1", Loopback),
            ("::ffff:169.254.169.254", Metadata),
            ("::10.0.0.1", Private),
            ("::8.8.8.8", Reserved),
            ("::ffff:0:10.0.0.1", Private),
            ("64:ff9b::10.0.0.1", Private),
            ("64:ff9b::169.254.169.254", Metadata),
            ("64:ff9b:1::192.168.0.1", Private),
            ("64:ff9b:1::8.8.8.8", Reserved),
            ("2002:7f00:0001::1", Loopback),
            ("2002:a9fe:a9fe::1", Metadata),
            ("2001:db8::1", Reserved),
            ("2001:0:4136:e378::1", Reserved),
            ("2600::5efe:10.0.0.1", Private),
            ("100::1", Reserved),
            ("5f00::1", Reserved),
        ] {
            check(ip, Some(kind));
        }
    }

    #[test]
    fn public_addresses_pass() {
        for ip in [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "192.169.0.1",
            "2606:4700:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:0808:0808::1",
        ] {
            check(ip, None);
        }
    }

    #[test]
    fn settings_open_networks_and_hosts_and_nothing_else() {
        let policy = policy(&["127.0.0.0/8", " crm.internal ", "fd12::/16", "", "10.9.9.9"]);
        let verdict = |host: &str, ip: &str| policy.check_ip(host, ip.parse().unwrap()).is_ok();
        assert!(verdict("localhost", "127.0.0.1"));
        assert!(verdict("localhost", "::ffff:127.0.0.1"));
        assert!(verdict("CRM.internal.", "10.0.0.1"));
        assert!(verdict("x", "fd12::1"));
        assert!(verdict("x", "10.9.9.9"));
        assert!(!verdict("x", "10.9.9.8"));
        assert!(!verdict("other.internal", "10.0.0.1"));
        assert!(!verdict("localhost", "::1"));
    }

    #[test]
    fn a_refusal_names_host_address_and_setting() {
        let refused = policy(&[])
            .check_ip("localhost", "127.0.0.1".parse().unwrap())
            .unwrap_err();
        assert_eq!(
            refused.to_string(),
            "localhost is at 127.0.0.1, a loopback address; such addresses are refused unless WEIR_EGRESS_ALLOW names the host or its network"
        );
    }

    #[test]
    fn entries_that_cannot_be_meant_are_errors() {
        for entry in [
            "http://127.0.0.1",
            "localhost:8080",
            "10.0.0.0/33",
            "10.0.0",
            "a b",
            "*",
        ] {
            assert!(EgressPolicy::new(&[entry.to_owned()]).is_err(), "{entry}");
        }
    }
}
