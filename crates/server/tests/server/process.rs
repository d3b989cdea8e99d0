//! The real program.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use clap::CommandFactory as _;
use conclave_channel::{Body, Entry};
use conclave_names::ChannelId;
use conclave_protocol::{Code, Refusal};

use super::client::*;

fn conclaved() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conclaved"));
    // Of the environment, only what programs need anyway.
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// Whether it succeeded, and what it said. Where it failed, it did so with status 1.
fn output(command: &mut Command) -> (bool, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(matches!(status.code(), Some(0 | 1)), "{status}");
    (status.success(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A server that is ended with the test, whatever happens.
pub(crate) struct Program {
    child: Child,
    pub(crate) addr: String,
}

impl Program {
    fn start(directory: &Path) -> Self {
        Self::start_with(directory, &[], Stdio::inherit())
    }

    pub(crate) fn start_with(directory: &Path, flags: &[&str], log: Stdio) -> Self {
        let mut child = conclaved()
            .args(["--listen", "127.0.0.1:0", "--domain", "example.com", "--data-dir"])
            .arg(directory)
            .args(flags)
            .stderr(log)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addr =
            line.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).unwrap_or_else(|| panic!("{line}"));
        Self { addr: addr.to_owned(), child }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&mut self, name: &str) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// With threads: while the test waits for the program, its client must answer the server's farewell.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_signal() {
    let directory = tempfile::tempdir().unwrap();
    let ca = || std::fs::read_to_string(directory.path().join("tls/ca.pem")).unwrap();
    for (n, signal) in [(1, "-TERM"), (2, "-INT"), (3, "-KILL")] {
        let mut program = Program::start(directory.path());
        let client = Client::to(&program.addr, &ca()).await;
        client.register(&format!("user{n}"), n, "").await.unwrap();
        assert_eq!(client.channel(n).await.submit(1, vec![n; 256]).await, 1);
        let code = program.signal(signal);
        assert_eq!(code, (signal != "-KILL").then_some(0), "{signal}");
    }
    let mut program = Program::start(directory.path());
    let client = Client::to(&program.addr, &ca()).await;
    for n in 1..=3 {
        let status = client.register(&format!("user{n}"), n + 10, "").await.unwrap_err();
        assert_eq!(Refusal::from_status(&status).unwrap().code, Code::NameTaken);
        let log = client.session(n, ChannelId::new([n; 16])).await.fetch(0).await;
        let Body::Inline(body) = Entry::parse(&log.entries[0].entry).unwrap().body else { panic!("not inline") };
        assert_eq!((log.entries.len(), body), (1, vec![n; 256]));
    }
    assert_eq!(program.signal("-TERM"), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_made_while_the_program_runs_lets_one_register() {
    let directory = tempfile::tempdir().unwrap();
    let mut program = Program::start_with(directory.path(), &["--registration", "invite"], Stdio::inherit());
    let ca = std::fs::read_to_string(directory.path().join("tls/ca.pem")).unwrap();
    let client = Client::to(&program.addr, &ca).await;
    denied(client.register("alice", 1, "").await, Code::InviteRequired);
    let mut invite = conclaved();
    let (good, token, error) = output(invite.args(["invite", "create", "--data-dir"]).arg(directory.path()));
    assert!(good, "{error}");
    client.register("alice", 1, token.trim()).await.unwrap();
    denied(client.register("bob", 2, token.trim()).await, Code::InviteInvalid);
    assert_eq!(program.signal("-TERM"), Some(0));
    assert_eq!(std::fs::read_dir(directory.path().join("invites")).unwrap().count(), 0, "it was taken over");
}

#[test]
fn help_and_handbook_explain_every_setting() {
    let (good, help, _) = output(conclaved().arg("--help"));
    assert!(good);
    let handbook = include_str!("../../../../docs/configuration.md");
    let (_, example, _) = output(conclaved().arg("init"));
    for setting in conclave_server::args::Args::command().get_arguments() {
        let Some(variable) = setting.get_env().and_then(|name| name.to_str()) else { continue };
        let flag = format!("--{}", setting.get_long().unwrap());
        assert!(setting.get_help().is_some(), "{flag}");
        assert!(help.contains(variable) && help.contains(&flag), "{flag}");
        assert!(handbook.contains(&format!("`{variable}`")) && handbook.contains(&format!("`{flag}")), "{flag}");
    }
    let mut section = String::new();
    for line in example.lines().map(|line| line.trim_start_matches("# ")) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some((name, _)) = line.split_once(" = ").filter(|(name, _)| !name.contains([' ', '"'])) {
            assert!(handbook.contains(&format!("`{section}{name}`")), "{section}{name}");
        }
    }
    for default in ["127.0.0.1:7443", "conclaved-data", "[default: open]", "[default: text]"] {
        assert!(help.contains(default), "{default}");
    }
}

#[test]
fn an_example_is_written_once_and_is_good() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("conclaved.toml");
    assert!(output(conclaved().arg("init").arg(&path)).0);
    let (good, _, error) = output(conclaved().arg("init").arg(&path));
    assert!(!good && error.contains("conclaved.toml"), "{error}");
    let (good, _, error) = output(conclaved().args(["check", "--config"]).arg(&path));
    assert!(good, "{error}");
}

#[test]
fn the_check_looks_at_what_the_configuration_names() {
    for (flags, word) in [
        (["--tls-certificate", "/no/such.pem", "--tls-key", "/no/such.key"].as_slice(), "/no/such.pem"),
        (&["--authentication", "false", "--issuers-file", "/no/issuers.pem"], "/no/issuers.pem"),
        (&["--log", "info,=x=y"], "log level"),
    ] {
        let (good, _, error) = output(conclaved().arg("check").args(flags));
        assert!(!good && error.contains(word), "{word}: {error}");
    }
}

#[test]
fn a_wrong_configuration_is_refused_with_line_and_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wrong.toml");
    for (text, words) in [
        ("domain = \"x.example\"\nlistne = \"127.0.0.1:1\"\n", ["line 2", "listne", "listen"]),
        ("\n\nregistration = \"maybe\"\n", ["line 3", "maybe", "invite"]),
        ("[limits]\nconnections = \"many\"\n", ["line 2", "connections", "string"]),
        ("listen = \"0.0.0.0:0\"\n[tls]\ninsecure_plaintext = true\n", ["line 3", "loopback", "127.0.0.1"]),
        ("[tls]\nkey = \"k\"\n", ["line 2", "key", "both"]),
    ] {
        std::fs::write(&path, text).unwrap();
        let (good, _, error) = output(conclaved().arg("--config").arg(&path));
        assert!(!good, "{text}");
        for word in words {
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}

#[test]
fn flags_override_the_environment_which_overrides_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("conclaved.toml");
    std::fs::write(&path, "domain = \"file.example\"\nlisten = \"127.0.0.1:1\"\nmetrics = \"127.0.0.1:11\"\n").unwrap();
    let mut command = conclaved();
    command.arg("check").env("CONCLAVE_CONFIG", &path);
    command.env("CONCLAVE_DOMAIN", "environment.example").env("CONCLAVE_LISTEN", "127.0.0.1:2");
    let (good, shown, error) = output(command.args(["--listen", "127.0.0.1:3"]));
    assert!(good, "{error}");
    for word in ["environment.example", "127.0.0.1:3", "127.0.0.1:11"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    let wrong = conclaved().args(["check"]).env("CONCLAVE_LISTEN", "nowhere").output().unwrap();
    let error = String::from_utf8(wrong.stderr).unwrap();
    assert_eq!(wrong.status.code(), Some(2), "what the command line itself refuses");
    assert!(error.contains("listen") && error.contains("nowhere"), "{error}");
}

#[test]
fn an_invite_is_a_token_and_nothing_useless_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let invite = |uses: &str, expires: &str| {
        let mut command = conclaved();
        command.args(["invite", "create", "--uses", uses, "--expires", expires]);
        let ended = command.env("CONCLAVE_DATA_DIR", directory.path()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (ended.status.success(), text(ended.stdout), text(ended.stderr))
    };
    let (good, token, error) = invite("2", "7");
    assert!(good, "{error}");
    assert!(error.contains("registration is open") && error.contains("no server"), "{error}");
    assert!(token.trim().len() == 32 && token.trim().bytes().all(|b| b.is_ascii_hexdigit()), "{token}");
    assert!(!invite("0", "7").0);
    assert!(!invite("1", "0").0);
}
