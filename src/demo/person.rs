//! A person: a client process, driven through `conclave shell`.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use serde_json::Value;

use super::{
    Deviation, Played, says,
    server::{ServerProcess, again},
};

pub(crate) struct Person {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Person {
    pub(crate) fn start(name: &str, directory: &Path) -> Played<Self> {
        let failed = |why: String| Deviation::new(format!("{name}'s client does not start: {why}"));
        let mut child = again("client")?
            .arg("--json")
            .arg("--profile")
            .arg(directory.join(name))
            .arg("shell")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or_else(|| failed("no output".into()))?;
        Ok(Self { name: name.to_owned(), child, input, output: BufReader::new(output) })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn deviation(&self, verb: &str, what: &str) -> Deviation {
        Deviation::new(format!("{}, at `{verb}`: {what}", self.name))
    }

    /// Sends a line to the client and reads its answer.
    fn exchange(&mut self, verb: &str) -> Played<Value> {
        let gone = self.deviation(verb, "the client is gone");
        let Some(input) = self.input.as_mut() else { return Err(gone) };
        let sent = writeln!(input, "{verb}").and_then(|()| input.flush());
        let mut answer = String::new();
        match sent.and_then(|()| self.output.read_line(&mut answer)) {
            Ok(read) if read > 0 => {
                serde_json::from_str(&answer).map_err(|error| self.deviation(verb, &format!("{error}: {answer}")))
            }
            _ => Err(gone),
        }
    }

    /// Has the client do something that must succeed.
    pub(crate) fn ask(&mut self, verb: &str) -> Played<Value> {
        let mut answer = self.exchange(verb)?;
        if answer["ok"] == true {
            Ok(answer["result"].take())
        } else {
            Err(self.deviation(verb, answer["error"]["message"].as_str().unwrap_or("no answer")))
        }
    }

    /// Has the client try something that must be refused.
    pub(crate) fn is_refused(&mut self, verb: &str, code: &str) -> Played<()> {
        let answer = self.exchange(verb)?;
        if answer["ok"] == false && answer["error"]["code"] == code {
            Ok(())
        } else {
            Err(self.deviation(verb, &format!("should have been refused with {code}, but: {answer}")))
        }
    }

    pub(crate) fn register(&mut self, server: &ServerProcess) -> Played<String> {
        let verb = format!(
            "register {}@localhost --device laptop --server https://{} --ca '{}'",
            self.name,
            server.address(),
            server.ca().display()
        );
        let answer = self.ask(&verb)?;
        Ok(answer["client"].as_str().unwrap_or("?").to_owned())
    }

    pub(crate) fn say(&mut self, text: &str) -> Played<()> {
        self.ask(&format!("send \"The Clubhouse\" \"{text}\""))?;
        says(&self.name, &format!("-> DS   \"{text}\" (the server sees 512 sealed bytes or so)"));
        Ok(())
    }

    /// Has the client read all that was said, and compares.
    pub(crate) fn hears(&mut self, expected: &[&str]) -> Played<()> {
        let answer = self.ask("read \"The Clubhouse\" --all")?;
        let items = answer["items"].as_array().cloned().unwrap_or_default();
        let heard: Vec<_> = items.iter().filter_map(|item| item["text"].as_str()).collect();
        if heard != expected {
            return Err(self.deviation("read", &format!("read {heard:?} instead of {expected:?}")));
        }
        if let Some(last) = expected.last() {
            says(&self.name, &format!("<- DS   reads \"{last}\""));
        }
        Ok(())
    }

    /// Ends the client's process.
    pub(crate) fn stop(mut self) -> Played<()> {
        drop(self.input.take());
        let status = self.child.wait().map_err(|error| self.deviation("quit", &error.to_string()))?;
        if status.success() { Ok(()) } else { Err(self.deviation("quit", &status.to_string())) }
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        // If the demonstration ends early. A process that has ended already is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
