use conclave_delivery::limits::Rate;

macro_rules! surfaces {
    ($($(#[doc = $doc:literal])* $name:ident, $surface:ident, $what:literal, $default:expr;)*) => {
        /// What one network address (IPv4), or one network of 64 bits (IPv6), may ask for. Sixteen times each rate is
        /// for a site of 48 bits.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct AddressLimits {
            /// Connections at a time.
            pub connections: usize,
            /// Requests that are received or answered at a time; open streams and readers of blobs are apart.
            pub requests: usize,
            /// Open streams.
            pub streams: usize,
            /// Blobs that are read at a time.
            pub readers: usize,
            $($(#[doc = $doc])* pub $name: Rate,)*
        }

        impl AddressLimits {
            /// No limits at all: for tests, benchmarks, and servers behind a proxy that limits.
            #[must_use]
            pub const fn none() -> Self {
                Self {
                    connections: usize::MAX,
                    requests: usize::MAX,
                    streams: usize::MAX,
                    readers: usize::MAX,
                    $($name: Rate::UNLIMITED,)*
                }
            }
        }

        impl Default for AddressLimits {
            /// What suits a server that strangers reach: enough for some hundred people behind one address.
            fn default() -> Self {
                Self { connections: 512, requests: 128, streams: 1000, readers: 64, $($name: $default,)* }
            }
        }

        /// What is limited by a rate.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Surface {
            $($surface,)*
        }

        impl Surface {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$surface),*];

            pub(crate) fn rate(self, settings: &AddressLimits) -> Rate {
                match self {
                    $(Self::$surface => settings.$name,)*
                }
            }

            /// For people.
            pub(crate) fn what(self) -> &'static str {
                match self {
                    $(Self::$surface => $what,)*
                }
            }
        }
    };
}

surfaces! {
    /// New connections.
    new_connections, Connections, "connections", Rate::per_second(512, 20);
    /// Calls of any kind.
    calls, Calls, "calls", Rate::per_second(5000, 1000);
    /// Bytes of requests.
    received_bytes, ReceivedBytes, "bytes of requests", Rate::per_second(1 << 30, 2 << 20);
    /// Calls without signature or session, that read: `GetServerInfo`, `GetIssuers`, `ReadBlob`, health.
    reads, Reads, "unsigned calls", Rate::per_second(1000, 50);
    /// Signed calls that have no limit of their own: each costs a signature check.
    signed, Signed, "signed calls", Rate::per_second(2000, 50);
    /// New sessions. A client opens one for each of its groups.
    sessions, Sessions, "new sessions", Rate::per_second(3000, 50);
    /// Registrations, attempts with invites included.
    registrations, Registrations, "registrations", Rate::per_minute(60, 6);
    /// Links of new devices.
    links, Links, "new links", Rate::per_minute(16, 2);
    /// New channels: groups and inboxes.
    channels, Channels, "new channels", Rate::per_minute(200, 10);
    /// New streams.
    new_streams, Streams, "new streams", Rate::per_second(1000, 20);
}
