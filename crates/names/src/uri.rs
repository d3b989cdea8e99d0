//! MIMI URIs (draft-ietf-mimi-protocol): who and what is spoken of, and at which provider.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest name within a URI, in bytes.
const SEGMENT_MAX: usize = 64;

/// Longest domain name, in bytes (RFC 1035).
const DOMAIN_MAX: usize = 253;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Not of the form `mimi://domain/kind/name`.
    #[error("`{text}` is not a {kind} name: write it like {example}")]
    Form {
        /// What was read, shortened.
        text: String,
        /// What was expected.
        kind: &'static str,
        /// A good example.
        example: &'static str,
    },
    /// The provider's part is not a domain name.
    #[error("`{0}` is not a domain name: use lower-case letters, digits, hyphens and dots, and no port")]
    Domain(String),
    /// A part after the domain has characters or a length that names may not have.
    #[error("`{0}` is not a valid name: use 1 to 64 of a-z, 0-9, `.`, `_` and `-`, starting with a letter or digit")]
    Segment(String),
}

fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// A domain name of a provider: lower case, without a port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(Box<str>);

impl Domain {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Domain {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if text.len() <= DOMAIN_MAX && text.split('.').all(label) {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Domain(shorten(text)))
        }
    }
}

fn segment(text: &str) -> Result<Box<str>, NameError> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let first = text.bytes().next().is_some_and(good);
    let rest = text.bytes().all(|b| good(b) || matches!(b, b'.' | b'_' | b'-'));
    if first && rest && text.len() <= SEGMENT_MAX { Ok(text.into()) } else { Err(NameError::Segment(shorten(text))) }
}

/// Splits `mimi://domain/kind/rest` and checks domain and kind.
fn split<'a>(
    text: &'a str,
    letter: &str,
    kind: &'static str,
    example: &'static str,
) -> Result<(Domain, &'a str), NameError> {
    let form = || NameError::Form { text: shorten(text), kind, example };
    let (domain, path) = text.strip_prefix("mimi://").and_then(|rest| rest.split_once('/')).ok_or_else(form)?;
    let (found, rest) = path.split_once('/').ok_or_else(form)?;
    if found != letter {
        return Err(form());
    }
    Ok((domain.parse()?, rest))
}

/// What every textual name has in common.
macro_rules! textual {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

textual!(Domain);

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name of the form `mimi://domain/letter/name`.
macro_rules! plain_uri {
    ($(#[$doc:meta])* $name:ident, $letter:literal, $kind:literal, $example:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            domain: Domain,
            name: Box<str>,
        }

        impl $name {
            /// From the provider's domain and the name there.
            ///
            /// # Errors
            /// [`NameError::Segment`] if the name has characters or a length that names may not have.
            pub fn new(domain: Domain, name: &str) -> Result<Self, NameError> {
                Ok(Self { domain, name: segment(name)? })
            }

            /// The provider that the name belongs to.
            #[must_use]
            pub fn domain(&self) -> &Domain {
                &self.domain
            }

            /// The name at that provider.
            #[must_use]
            pub fn name(&self) -> &str {
                &self.name
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let (domain, name) = split(text, $letter, $kind, $example)?;
                Self::new(domain, name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("mimi://{}/", $letter, "/{}"), self.domain, self.name)
            }
        }

        textual!($name);
    };
}

plain_uri! {
    /// A user: `mimi://example.com/u/alice`.
    UserUri, "u", "user", "mimi://example.com/u/alice"
}

plain_uri! {
    /// A room, stable over every MLS group that carries it: `mimi://example.com/r/clubhouse`.
    RoomUri, "r", "room", "mimi://example.com/r/clubhouse"
}

plain_uri! {
    /// An MLS group at its hub; the text is the MLS group id: `mimi://hub.example.com/g/<random>`.
    GroupUri, "g", "group", "mimi://hub.example.com/g/1f0c"
}

impl UserUri {
    /// The client of this user with the given device name.
    ///
    /// # Errors
    /// [`NameError::Segment`] if the device name is not a valid name.
    pub fn client(&self, device: &str) -> Result<ClientUri, NameError> {
        Ok(ClientUri { user: self.clone(), device: segment(device)? })
    }
}

/// A client, that is one device of a user: `mimi://example.com/d/alice/laptop`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientUri {
    user: UserUri,
    device: Box<str>,
}

impl ClientUri {
    /// The user whose device this is.
    #[must_use]
    pub fn user(&self) -> &UserUri {
        &self.user
    }

    /// The device's name among its user's.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// The provider that the client belongs to.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        self.user.domain()
    }
}

impl FromStr for ClientUri {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        const EXAMPLE: &str = "mimi://example.com/d/alice/laptop";
        let (domain, rest) = split(text, "d", "client", EXAMPLE)?;
        let (user, device) = rest.split_once('/').ok_or_else(|| NameError::Form {
            text: shorten(text),
            kind: "client",
            example: EXAMPLE,
        })?;
        UserUri::new(domain, user)?.client(device)
    }
}

impl fmt::Display for ClientUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mimi://{}/d/{}/{}", self.user.domain, self.user.name, self.device)
    }
}

textual!(ClientUri);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_round_trip() {
        for text in ["mimi://example.com/u/alice", "mimi://localhost/u/a.b_c-9"] {
            assert_eq!(text.parse::<UserUri>().unwrap().to_string(), text);
        }
        let client = "mimi://example.com/d/alice/laptop";
        assert_eq!(client.parse::<ClientUri>().unwrap().to_string(), client);
        assert_eq!("mimi://a.b/g/00ff".parse::<GroupUri>().unwrap().name(), "00ff");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "mimi://",
            "mimi://example.com",
            "mimi://example.com/u",
            "mimi://example.com/u/",
            "mimi://example.com/r/alice",
            "mimi://Example.com/u/alice",
            "mimi://example.com:443/u/alice",
            "mimi://example.com/u/Alice",
            "mimi://example.com/u/alice/",
            "mimi://example.com/u/.alice",
            "mimi://example.com/u/al ice",
            "mimi://-x.com/u/alice",
            "mimi://a..b/u/alice",
            "https://example.com/u/alice",
        ] {
            assert!(text.parse::<UserUri>().is_err(), "{text}");
        }
        assert!("mimi://example.com/d/alice".parse::<ClientUri>().is_err());
        assert!("mimi://example.com/d/alice/a/b".parse::<ClientUri>().is_err());
        let long = format!("mimi://example.com/u/{}", "a".repeat(65));
        assert!(long.parse::<UserUri>().is_err());
    }

    #[test]
    fn an_error_never_repeats_control_characters_or_long_input() {
        let error = format!("\u{1b}[2J{}", "x".repeat(10_000)).parse::<UserUri>().unwrap_err();
        let shown = error.to_string();
        assert!(shown.len() < 300 && !shown.contains('\u{1b}'));
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_what_parses_prints_itself(text in ".{0,120}") {
            if let Ok(uri) = text.parse::<UserUri>() {
                prop_assert_eq!(uri.to_string(), text);
            }
        }

        #[test]
        fn every_well_formed_client_round_trips(
            domain in "[a-z0-9]{1,12}(\\.[a-z0-9]{1,12}){0,3}",
            user in "[a-z0-9][a-z0-9._-]{0,63}",
            device in "[a-z0-9][a-z0-9._-]{0,63}",
        ) {
            let text = format!("mimi://{domain}/d/{user}/{device}");
            prop_assert_eq!(text.parse::<ClientUri>().unwrap().to_string(), text);
        }
    }
}
