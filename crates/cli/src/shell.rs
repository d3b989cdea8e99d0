//! `conclave shell`: verbs from standard input, on one open profile.

use std::io::IsTerminal as _;

use clap::Parser as _;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::{
    args::{Line, Verb},
    error::CliError,
    output::{Output, describe, print},
    profile::Context,
    verbs,
};

/// Runs lines until the end of the input or `quit`. With JSON, each line gets one line as its answer.
pub(crate) async fn run(context: &mut Context, output: &Output) -> Result<(), CliError> {
    let prompt = output.is_terminal() && std::io::stdin().is_terminal();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        if prompt {
            eprint!("conclave> ");
        }
        let line = lines.next_line().await.map_err(|error| CliError::Io("standard input".into(), error))?;
        let Some(line) = line else { return Ok(()) };
        let line = line.trim();
        match line {
            "" => continue,
            "quit" | "exit" => return Ok(()),
            _ => {}
        }
        if output.is_json() {
            let collecting = Output::collecting();
            let answer = match one(line, context, &collecting).await {
                Ok(()) => json!({ "ok": true, "result": collecting.take() }),
                Err(error) => json!({ "ok": false, "error": describe(&error) }),
            };
            print(&answer.to_string())?;
        } else if let Err(error) = one(line, context, output).await {
            // The exit code is the shell's own: an error of one line does not end it.
            let _ = output.fail(&error);
        }
    }
}

async fn one(line: &str, context: &mut Context, output: &Output) -> Result<(), CliError> {
    let words = shlex::split(line).ok_or_else(|| CliError::Usage("a quotation mark is not closed".into()))?;
    let parsed = Line::try_parse_from(words).map_err(|error| CliError::Usage(error.to_string()))?;
    match parsed.verb {
        Verb::Shell => Err(CliError::Usage("this is a shell already".into())),
        Verb::Listen { .. } => Err(CliError::Usage("a shell answers each line: use `sync`".into())),
        verb => Box::pin(verbs::run(verb, context, output)).await,
    }
}
