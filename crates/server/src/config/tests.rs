//! Files, flags and what does not go together.

use conclave_delivery::limits::{Limits, Rate};

use super::*;
use crate::limits::AddressLimits;

fn load(text: &str, over: Overrides) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("conclaved.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(Some(&path), over)
}

#[test]
fn the_example_is_the_default() {
    let config = load(EXAMPLE, Overrides::default()).unwrap();
    assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
}

#[test]
fn flags_go_before_the_file() {
    let over = Overrides { domain: Some("flag.example".parse().unwrap()), ..Overrides::default() };
    let config = load("domain = \"file.example\"\nlisten = \"127.0.0.1:1\"", over).unwrap();
    assert_eq!(config.domain.as_str(), "flag.example");
    assert_eq!(config.listen.port(), 1);
}

#[test]
fn a_wrong_file_is_refused_with_line_and_remedy() {
    for (text, line, word) in [
        ("domain = \"x.example\"\nlistem = \"127.0.0.1:1\"", "line 2", "listem"),
        ("domain = \"Not A Domain\"", "line 1", "domain name"),
        ("\n\nregistration = \"maybe\"", "line 3", "invite"),
        ("listen = 7", "line 1", "listen"),
        ("[tls\n", "line 1", "tls"),
        ("[limits.address]\nlinks = \"5 a minute\"", "line 2", "200 + 10/min"),
        ("[limits.service]\n\nlinks = \"5 + 1/s\"", "line 3", "user_claims"),
    ] {
        let error = load(text, Overrides::default()).unwrap_err().to_string();
        assert!(error.contains(line) && error.contains(word) && error.contains("conclaved init"), "{error}");
    }
}

#[test]
fn limits_are_set_one_by_one() {
    let text = "[limits.address]\nconnections = 7\nlinks = \"3 + 4/h\"\n[limits.service]\nuser_claims = \"unlimited\"";
    let config = load(text, Overrides::default()).unwrap();
    let expected = AddressLimits { connections: 7, links: Rate::per_hour(3, 4), ..AddressLimits::default() };
    assert_eq!(config.address_limits, expected);
    assert_eq!(config.service_limits, Limits { user_claims: Rate::UNLIMITED, ..Limits::default() });
    let never = load("[limits]\nstream_silence_seconds = 0", Overrides::default()).unwrap();
    assert_eq!(never.stream_silence, None);
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    for (text, word) in [
        ("[tls]\ninsecure_plaintext = true\n[services]\n", ""),
        ("listen = \"0.0.0.0:1\"\n[tls]\ninsecure_plaintext = true", "loopback"),
        ("[tls]\ncertificate = \"a\"", "both"),
        ("[tls]\ncertificate = \"a\"\nkey = \"b\"\ninsecure_plaintext = true", "exclude"),
        ("[services]\nauthentication = false\ndelivery = false", "switched off"),
        ("[services]\nauthentication = false", "issuers"),
        ("[issuers]\nfile = \"x\"", "remove"),
        ("[services]\nauthentication = false\n[issuers]\nfile = \"x\"\nca = \"y\"", "line 5"),
        ("[issuers]\nca = \"y\"", "issuers.url"),
        ("credential_lifetime_days = 0", "365"),
        ("[limits.address]\nreaders = 0", "nobody"),
        ("[limits]\nsessions_per_address = 0", "line 2"),
        ("[limits]\nidle_seconds = 9", "line 2"),
        ("[limits]\nstream_silence_seconds = 100000", "86400"),
    ] {
        match load(text, Overrides::default()) {
            Ok(_) => assert!(word.is_empty(), "{text}"),
            Err(error) => assert!(!word.is_empty() && error.to_string().contains(word), "{error}"),
        }
    }
    assert!(matches!(Config::load(Some(Path::new("/no/such")), Overrides::default()), Err(ConfigError::Read { .. })));
}

#[test]
fn retention_has_bounds_by_default_and_zero_is_none() {
    const DAY_MS: u64 = 24 * 3600 * 1000;
    let of = |text: &str| load(text, Overrides::default()).unwrap().retention;
    assert_eq!(of(""), Retention { age_ms: Some(90 * DAY_MS), bytes: Some(1 << 30) });
    assert_eq!(of("[retention]\ndays = 7\n"), Retention { age_ms: Some(7 * DAY_MS), bytes: Some(1 << 30) });
    assert_eq!(of("[retention]\ndays = 0\nchannel_bytes = 0\n"), Retention::FOREVER);
    let over = Overrides { retention_days: Some(1), retention_channel_bytes: Some(5), ..Overrides::default() };
    let config = load("[retention]\ndays = 7\n", over).unwrap();
    assert_eq!(config.retention, Retention { age_ms: Some(DAY_MS), bytes: Some(5) });
    let error = load("[retention]\nday = 7\n", Overrides::default()).unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains("channel_bytes"), "{error}");
}
