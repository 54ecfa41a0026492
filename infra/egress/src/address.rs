//! What kind of place an address is. Only [`Class::Public`] is ever dialled.
//!
//! Owns the table, after IANA's special-purpose registries for IPv4 and IPv6. An IPv4 address inside an IPv6 one is
//! unwrapped and judged first, so that no spelling hides where packets would go. Refuses in doubt: whatever IANA has not
//! handed out for the public internet is [`Class::Reserved`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A kind of address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Class {
    /// A host on the internet.
    #[error("public")]
    Public,
    /// This host, or none.
    #[error("unspecified")]
    Unspecified,
    /// This machine.
    #[error("loopback")]
    Loopback,
    /// This link; 169.254.169.254 is the metadata server of most clouds.
    #[error("link-local")]
    LinkLocal,
    /// A private network: RFC 1918, IPv6 site-local and unique-local.
    #[error("private")]
    Private,
    /// A carrier's own network, 100.64.0.0/10.
    #[error("carrier-grade NAT")]
    CarrierNat,
    /// Many hosts.
    #[error("multicast")]
    Multicast,
    /// For books and benches.
    #[error("documentation or benchmarking")]
    Example,
    /// Held back, retired, or a cloud's own.
    #[error("reserved")]
    Reserved,
}

/// Judges one address.
pub fn classify(address: IpAddr) -> Class {
    match address {
        IpAddr::V4(v4) => four(v4),
        IpAddr::V6(v6) => six(v6),
    }
}

fn four(address: Ipv4Addr) -> Class {
    match address.octets() {
        [0, ..] => Class::Unspecified,
        [127, ..] => Class::Loopback,
        [169, 254, ..] => Class::LinkLocal,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Class::Private,
        [100, 64..=127, ..] => Class::CarrierNat,
        [224..=239, ..] => Class::Multicast,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] | [198, 18..=19, ..] => Class::Example,
        // Protocol assignments, the retired 6to4 relays, and what was never handed out.
        [192, 0, 0, _] | [192, 88, 99, _] | [240..=255, ..] => Class::Reserved,
        // Azure answers here for the machine's agent and keys, on an address that looks public.
        [168, 63, 129, 16] => Class::Reserved,
        _ => Class::Public,
    }
}

fn six(address: Ipv6Addr) -> Class {
    match address {
        Ipv6Addr::UNSPECIFIED => return Class::Unspecified,
        Ipv6Addr::LOCALHOST => return Class::Loopback,
        _ => {}
    }
    let [a, b, c, d, e, f, g, h] = address.segments();
    match [a, b, c, d, e, f] {
        // Mapped, and the NAT64 prefix by which a network without IPv4 reaches it: the embedded address is the host.
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => return four(join(g, h)),
        // Compatible, translated, local NAT64, 6to4, Teredo's server and its client, whose bits are flipped. None of
        // these is in use on the internet, so a public address inside does not make them public.
        [0, 0, 0, 0, 0, 0] | [0, 0, 0, 0, 0xffff, 0] | [0x64, 0xff9b, 1, ..] => return inside(&[join(g, h)]),
        [0x2002, high, low, ..] => return inside(&[join(high, low)]),
        [0x2001, 0, high, low, ..] => return inside(&[join(high, low), join(!g, !h)]),
        _ => {}
    }
    match [a, b] {
        [0xfe80..=0xfebf, _] => Class::LinkLocal,
        [0xfec0..=0xfeff, _] | [0xfc00..=0xfdff, _] => Class::Private,
        [0xff00..=0xffff, _] => Class::Multicast,
        [0x2001, 0xdb8] | [0x3fff, 0..=0x0fff] => Class::Example,
        [0x2001, 2] if c == 0 => Class::Example,
        [0x2001, 0..=0x01ff] => Class::Reserved,
        // The only part of the address space that is handed out.
        [0x2000..=0x3fff, _] => Class::Public,
        _ => Class::Reserved,
    }
}

fn join(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

/// The worst that a retired form carries inside, so that a report names what was aimed at.
fn inside(carried: &[Ipv4Addr]) -> Class {
    let worst = carried.iter().map(|address| four(*address)).find(|class| *class != Class::Public);
    worst.unwrap_or(Class::Reserved)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_of_address_is_told_apart_to_its_last_bit() {
        for (address, class) in [
            ("8.8.8.8", Class::Public),
            ("1.0.0.0", Class::Public),
            ("0.255.255.255", Class::Unspecified),
            ("9.255.255.255", Class::Public),
            ("10.0.0.0", Class::Private),
            ("11.0.0.0", Class::Public),
            ("100.63.255.255", Class::Public),
            ("100.64.0.0", Class::CarrierNat),
            ("100.100.100.200", Class::CarrierNat),
            ("100.127.255.255", Class::CarrierNat),
            ("100.128.0.0", Class::Public),
            ("126.255.255.255", Class::Public),
            ("127.0.0.1", Class::Loopback),
            ("127.255.255.255", Class::Loopback),
            ("128.0.0.0", Class::Public),
            ("168.63.129.16", Class::Reserved),
            ("169.253.255.255", Class::Public),
            ("169.254.169.254", Class::LinkLocal),
            ("169.255.0.0", Class::Public),
            ("172.15.255.255", Class::Public),
            ("172.16.0.0", Class::Private),
            ("172.31.255.255", Class::Private),
            ("172.32.0.0", Class::Public),
            ("192.0.0.192", Class::Reserved),
            ("192.0.1.0", Class::Public),
            ("192.0.2.1", Class::Example),
            ("192.88.99.1", Class::Reserved),
            ("192.167.255.255", Class::Public),
            ("192.168.0.0", Class::Private),
            ("192.169.0.0", Class::Public),
            ("198.17.255.255", Class::Public),
            ("198.18.0.0", Class::Example),
            ("198.19.255.255", Class::Example),
            ("198.20.0.0", Class::Public),
            ("198.51.100.7", Class::Example),
            ("203.0.113.7", Class::Example),
            ("223.255.255.255", Class::Public),
            ("224.0.0.1", Class::Multicast),
            ("239.255.255.255", Class::Multicast),
            ("240.0.0.1", Class::Reserved),
            ("255.255.255.255", Class::Reserved),
            ("::", Class::Unspecified),
            ("::1", Class::Loopback),
            ("::2", Class::Unspecified),
            ("::ffff:8.8.8.8", Class::Public),
            ("::ffff:169.254.169.254", Class::LinkLocal),
            ("::ffff:127.0.0.1", Class::Loopback),
            ("::ffff:0:10.0.0.1", Class::Private),
            ("::10.0.0.1", Class::Private),
            ("::8.8.8.8", Class::Reserved),
            ("64:ff9b::8.8.8.8", Class::Public),
            ("64:ff9b::a9fe:a9fe", Class::LinkLocal),
            ("64:ff9b:1::7f00:1", Class::Loopback),
            ("64:ff9b:1::808:808", Class::Reserved),
            ("100::1", Class::Reserved),
            ("2001::", Class::Unspecified),
            ("2001:0:808:808::f5ff:fffe", Class::Private),
            ("2001:0:a9fe:a9fe::f7f7:f7f7", Class::LinkLocal),
            ("2001:0:808:808::f7f7:f7f7", Class::Reserved),
            ("2001:2::1", Class::Example),
            ("2001:20::1", Class::Reserved),
            ("2001:200::1", Class::Public),
            ("2001:db8::1", Class::Example),
            ("2001:4860:4860::8888", Class::Public),
            ("2002:7f00:1::", Class::Loopback),
            ("2002:a9fe:a9fe::1", Class::LinkLocal),
            ("2002:808:808::1", Class::Reserved),
            ("2606:4700:4700::1111", Class::Public),
            ("3fff::1", Class::Example),
            ("3fff:1000::1", Class::Public),
            ("4000::1", Class::Reserved),
            ("fc00::1", Class::Private),
            ("fd00:ec2::254", Class::Private),
            ("fe80::1", Class::LinkLocal),
            ("febf::1", Class::LinkLocal),
            ("fec0::1", Class::Private),
            ("ff02::1", Class::Multicast),
        ] {
            assert_eq!(classify(address.parse().expect(address)), class, "{address}");
        }
    }

    fn every_form_around(v4: Ipv4Addr) -> Vec<Ipv6Addr> {
        let bits = u128::from(v4.to_bits());
        let form = |prefix: u128| Ipv6Addr::from_bits(prefix | bits);
        vec![
            v4.to_ipv6_mapped(),
            form(0),
            form(0xffff << 48),
            form(0x0064_ff9b << 96),
            form(0x0064_ff9b_0001 << 80),
            Ipv6Addr::from_bits(0x2002 << 112 | bits << 80 | 1),
            Ipv6Addr::from_bits(0x2001 << 112 | bits << 64 | 0xf7f7_f7f7),
            Ipv6Addr::from_bits(0x2001 << 112 | 0x0808_0808 << 64 | (!bits & 0xffff_ffff)),
        ]
    }

    /// What the standard library knows, by other means than a table of octets.
    fn special_to_std(v4: Ipv4Addr) -> bool {
        v4.is_private()
            || v4.is_loopback()
            || v4.is_link_local()
            || v4.is_multicast()
            || v4.is_broadcast()
            || v4.is_documentation()
            || v4.is_unspecified()
    }

    proptest! {
        #[test]
        fn no_wrapping_makes_an_address_public(bits: u32) {
            let v4 = Ipv4Addr::from_bits(bits);
            let class = classify(v4.into());
            prop_assert!(class != Class::Public || !special_to_std(v4));
            prop_assert_eq!(classify(v4.to_ipv6_mapped().into()), class);
            for form in every_form_around(v4).into_iter().filter(|_| class != Class::Public) {
                prop_assert_ne!(classify(form.into()), Class::Public, "{}", form);
            }
        }

        #[test]
        fn what_is_public_lies_in_the_space_that_is_handed_out(bits: u128) {
            let v6 = Ipv6Addr::from_bits(bits);
            if classify(v6.into()) == Class::Public {
                prop_assert!(v6.segments()[0] >> 13 == 1, "{}", v6);
                prop_assert!(!v6.is_multicast() && !v6.is_unique_local() && !v6.is_unicast_link_local());
            }
        }
    }
}
