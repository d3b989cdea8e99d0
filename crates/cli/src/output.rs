//! Answers: text for people, or JSON for programs.

use std::{
    cell::RefCell,
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

use serde::Serialize;
use serde_json::{Value, json};

use crate::error::CliError;

/// Takes out what could steer a terminal from what other people wrote.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{FFFD}' } else { c }).collect()
}

/// The same, on one line.
pub(crate) fn clean_line(text: &str) -> String {
    clean(text).replace('\n', " ⏎ ")
}

/// Where answers go.
pub(crate) struct Output {
    json: bool,
    /// In a shell: answers are collected, and printed as one line.
    collected: Option<RefCell<Vec<Value>>>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, collected: None }
    }

    /// Collects answers instead of printing them.
    pub(crate) fn collecting() -> Self {
        Self { json: true, collected: Some(RefCell::default()) }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether a person looks at it.
    pub(crate) fn is_terminal(&self) -> bool {
        !self.json && std::io::stdout().is_terminal()
    }

    /// Gives an answer: as JSON, or as the text that `show` makes of it.
    pub(crate) fn give<T: Serialize>(&self, value: &T, show: impl FnOnce(&T) -> String) -> Result<(), CliError> {
        let text = if self.json {
            let value = serde_json::to_value(value).unwrap_or(Value::Null);
            if let Some(collected) = &self.collected {
                collected.borrow_mut().push(value);
                return Ok(());
            }
            value.to_string()
        } else {
            show(value)
        };
        print(&text)
    }

    /// What was collected: the one answer, or all of them.
    pub(crate) fn take(&self) -> Value {
        let mut values = self.collected.as_ref().map(RefCell::take).unwrap_or_default();
        if values.len() == 1 { values.remove(0) } else { Value::Array(values) }
    }

    /// Something for a person to know, beside the answer.
    pub(crate) fn note(&self, text: &str) {
        if !self.json {
            eprintln!("{text}");
        }
    }

    /// Ends the program with an error.
    pub(crate) fn fail(&self, error: &CliError) -> ExitCode {
        if self.json {
            // Where answers go: a program reads there.
            let _ = print(&json!({ "error": describe(error) }).to_string());
        } else {
            eprintln!("conclave: {}", clean(&error.to_string()));
            if error.is_transient() {
                eprintln!("conclave: nothing is lost; try again later");
            }
        }
        ExitCode::from(error.exit_code())
    }
}

/// An error as programs read it.
pub(crate) fn describe(error: &CliError) -> Value {
    let mut described =
        json!({ "code": error.code(), "message": error.to_string(), "transient": error.is_transient() });
    if let (CliError::Partly { events, .. }, Value::Object(described)) = (error, &mut described) {
        described.insert("events".to_owned(), json!(events));
    }
    described
}

/// Prints a line at once. A reader that went away ends the program, as other programs do.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| CliError::Io("standard output".into(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_cannot_steer_a_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\u{7}\nc\u{9b}"), "a\u{FFFD}[2Jb\u{FFFD}\nc\u{FFFD}");
        assert_eq!(clean_line("a\nb"), "a ⏎ b");
    }
}
