//! Files, flags and what does not go together.

use super::*;

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
    ] {
        let error = load(text, Overrides::default()).unwrap_err().to_string();
        assert!(error.contains(line) && error.contains(word) && error.contains("conclaved init"), "{error}");
    }
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
    ] {
        match load(text, Overrides::default()) {
            Ok(_) => assert!(word.is_empty(), "{text}"),
            Err(error) => assert!(!word.is_empty() && error.to_string().contains(word), "{error}"),
        }
    }
    assert!(matches!(Config::load(Some(Path::new("/no/such")), Overrides::default()), Err(ConfigError::Read { .. })));
}
