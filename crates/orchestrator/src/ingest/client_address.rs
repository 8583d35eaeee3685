//! Who really called: the peer, or what trusted proxies say of it.
//!
//! `X-Forwarded-For` is a claim. It is read from the right, and only as long as the hop that wrote it is trusted;
//! anything to the left of the first untrusted address may have been invented by the caller.

use ipnet::IpNet;
use std::net::IpAddr;

/// The address of the client behind `trusted` proxies.
///
/// `peer` is the address of the socket; `forwarded` are the values of all `X-Forwarded-For` headers in the order received.
/// An entry that is no IP address ends the walk: the last address known to be true is the answer.
#[must_use]
pub fn client_address<'a>(
    peer: IpAddr,
    forwarded: impl DoubleEndedIterator<Item = &'a str>,
    trusted: &[IpNet],
) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.to_canonical();
    if !is_trusted(&client) {
        return client;
    }
    for entry in forwarded.rev().flat_map(|value| value.rsplit(',')) {
        let Some(address) = parse_entry(entry) else {
            return client;
        };
        client = address;
        if !is_trusted(&client) {
            return client;
        }
    }
    client
}

/// `203.0.113.7`, `203.0.113.7:4711`, `2001:db8::1`, `[2001:db8::1]:4711`.
fn parse_entry(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let bare = match entry.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None if entry.matches(':').count() == 1 => entry.split(':').next()?,
        None => entry,
    };
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(peer: &str, forwarded: &[&str], trusted: &[&str], expected: &str) {
        let trusted: Vec<IpNet> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let found = client_address(peer.parse().unwrap(), forwarded.iter().copied(), &trusted);
        assert_eq!(
            found,
            expected.parse::<IpAddr>().unwrap(),
            "{peer} {forwarded:?} {trusted:?}"
        );
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        check("203.0.113.9", &["10.9.9.9"], &[], "203.0.113.9");
        check("203.0.113.9", &["10.9.9.9"], &["10.0.0.0/8"], "203.0.113.9");
        check("10.0.0.1", &["198.51.100.7"], &["10.0.0.0/8"], "198.51.100.7");
        check(
            "10.0.0.1",
            &["6.6.6.6, 198.51.100.7, 10.0.0.2"],
            &["10.0.0.0/8"],
            "198.51.100.7",
        );
        check(
            "10.0.0.1",
            &["6.6.6.6", "198.51.100.7:4711"],
            &["10.0.0.0/8"],
            "198.51.100.7",
        );
        check(
            "::ffff:10.0.0.1",
            &["[2001:db8::1]:443"],
            &["10.0.0.0/8"],
            "2001:db8::1",
        );
        check("10.0.0.1", &["198.51.100.7, junk"], &["10.0.0.0/8"], "10.0.0.1");
        check("10.0.0.1", &[], &["10.0.0.0/8"], "10.0.0.1");
    }
}
