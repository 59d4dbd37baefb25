//! Which addresses may be connected to.
//!
//! Names of servers come from anybody, and where they lead does too: without this, any user of any server could have us send
//! requests to what only we can reach.
//!
//! After the registries of special-purpose addresses (RFC 6890) of IPv4 and IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is one of the internet's: not this machine's, a private network's, or of a range that stands for others.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let within = |a, b, c, d, bits: u32| {
        let network = u32::from(Ipv4Addr::new(a, b, c, d));
        (u32::from(address) ^ network) >> (32 - bits) == 0
    };
    let special = within(0, 0, 0, 0, 8)
        || within(10, 0, 0, 0, 8)
        // Carriers' own (CGNAT).
        || within(100, 64, 0, 0, 10)
        || within(127, 0, 0, 0, 8)
        // Link-local: also where clouds keep secrets.
        || within(169, 254, 0, 0, 16)
        || within(172, 16, 0, 0, 12)
        || within(192, 0, 0, 0, 24)
        // For documents.
        || within(192, 0, 2, 0, 24)
        || within(198, 51, 100, 0, 24)
        || within(203, 0, 113, 0, 24)
        // Relays from IPv6.
        || within(192, 88, 99, 0, 24)
        || within(192, 168, 0, 0, 16)
        || within(198, 18, 0, 0, 15)
        // Multicast, reserved, broadcast.
        || within(224, 0, 0, 0, 3);
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, .., high, low] = address.segments();
    // A translator makes an IPv4 address of it, which is then what counts. Servers without IPv4 reach the others so.
    if address.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return is_public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    }
    // All that is given out to the internet lies here; of that,
    (first & 0xe000) == 0x2000
        // Teredo and other ways through IPv4, benchmarks, ORCHID,
        && !(first == 0x2001 && second < 0x200)
        // 6to4,
        && first != 0x2002
        // and what is for documents isn't.
        && !(first == 0x2001 && second == 0xdb8)
        && !(first == 0x3fff && second < 0x1000)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_internet_is_allowed() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2606:4700::1111",
            "2a00:1450::1",
            "3fff:1000::1",
            "64:ff9b::1.1.1.1",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn what_only_we_can_reach_is_not() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.0",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            // IPv4 in IPv6: mapped, compatible, translated, 6to4, Teredo.
            "::ffff:127.0.0.1",
            "::ffff:1.1.1.1",
            "::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:101:101::",
            "2001::1",
            "2001:1ff::1",
            "100::1",
            "2001:db8::1",
            "3fff::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "4000::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }
}
