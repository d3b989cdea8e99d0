//! The program, run against a server in this process.

#![allow(dead_code, unreachable_pub)]

pub mod roster;

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use conclave_server::{Config, Running, Server};
use serde_json::Value;
use tempfile::TempDir;

/// A server, and a directory for the profiles of its users.
pub struct World {
    directory: TempDir,
    pub runtime: tokio::runtime::Runtime,
    pub server: Option<Running>,
}

impl World {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let config = Config::for_tests(&directory.path().join("server"), "localhost".parse().unwrap());
        let server = runtime.block_on(Server::start(config)).unwrap();
        Self { directory, runtime, server: Some(server) }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The program, for a profile, with nobody to ask.
    pub fn command(&self, profile: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_conclave"));
        command
            .env("CONCLAVE_HOME", self.path())
            .env_remove("CONCLAVE_PROFILE")
            .env_remove("CONCLAVE_PASSPHRASE")
            .args(["--profile", profile])
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, profile: &str, arguments: &[&str]) -> Output {
        self.command(profile).args(arguments).output().unwrap()
    }

    /// A verb that must succeed, in JSON.
    pub fn ok(&self, profile: &str, arguments: &[&str]) -> Value {
        let output = self.command(profile).arg("--json").args(arguments).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{profile}: {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&text).unwrap()
    }

    /// A verb that must fail: exit code, error code, message.
    pub fn fails(&self, profile: &str, arguments: &[&str]) -> (i32, String, String) {
        let output = self.command(profile).arg("--json").args(arguments).output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (output.status.code().unwrap(), text(&answer["error"]["code"]), text(&answer["error"]["message"]))
    }

    pub fn server_arguments(&self) -> [String; 4] {
        let server = self.server.as_ref().unwrap();
        let ca = self.path().join("server/tls/ca.pem");
        ["--server".into(), format!("https://{}", server.addr()), "--ca".into(), ca.display().to_string()]
    }

    pub fn register(&self, name: &str) {
        let user = format!("{name}@localhost");
        let server = self.server_arguments();
        let mut arguments = vec!["register", &user];
        arguments.extend(server.iter().map(String::as_str));
        let answer = self.ok(name, &arguments);
        assert_eq!(answer["client"], format!("mimi://localhost/d/{name}/laptop"));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.shutdown());
        }
    }
}
