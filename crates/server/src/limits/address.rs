use std::net::IpAddr;

/// From where somebody calls, as far as limits tell places apart: one address of IPv4, or one network of 64 bits of
/// IPv6, of which a subscriber commonly has at least one whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Address {
    V4([u8; 4]),
    V6([u8; 8]),
}

/// A network of 48 bits of IPv6, the most that a subscriber commonly has.
pub(crate) type Site = [u8; 6];

/// The first bytes.
fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut taken = [0; N];
    taken.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    taken
}

impl Address {
    pub(crate) fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.octets()),
            IpAddr::V6(ip) => Self::V6(first(&ip.octets())),
        }
    }

    /// The site of which it is a part.
    pub(crate) fn site(self) -> Option<Site> {
        match self {
            Self::V4(_) => None,
            Self::V6(network) => Some(first(&network)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Address {
        Address::of(text.parse().unwrap())
    }

    #[test]
    fn hosts_of_one_ipv6_network_are_one_and_mapped_ipv4_is_ipv4() {
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("2001:db8:1:2::1").site(), of("2001:db8:1:ffff::1").site());
        assert_ne!(of("2001:db8:1::1").site(), of("2001:db8:2::1").site());
        assert_eq!(of("::ffff:192.0.2.1").site(), None);
    }
}
