//! `device …`.

use std::{
    io::{BufRead as _, IsTerminal as _, Write as _},
    time::Duration,
};

use conclave_client::{Approval, Client, LinkCode};
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{recovery, register::registered};
use crate::{
    args::Device,
    error::CliError,
    names,
    output::{Output, print},
    profile::Context,
};

/// How long a link waits; then the server has forgotten it.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);

/// How often approval is asked for.
pub(super) const POLL: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct Listed {
    client: String,
    certificate_ends: u64,
    own: bool,
}

pub(super) async fn run(verb: Device, context: &mut Context, output: &Output) -> Result<(), CliError> {
    match verb {
        Device::List => {
            let client = context.client()?;
            let record = client.user_record(&client.user().clone()).await?;
            let own = client.client().clone();
            let listed: Vec<_> = record
                .clients
                .into_iter()
                .map(|(client, ends)| Listed {
                    own: client == own,
                    client: client.to_string(),
                    certificate_ends: ends.as_secs(),
                })
                .collect();
            let saved = client.recovery_state()?;
            let state = saved.as_ref().map(|saved| recovery::state(client, saved)).transpose()?;
            output.give(&json!({ "devices": listed, "recovery": saved }), |_| {
                let line =
                    |device: &Listed| format!("{}{}", device.client, if device.own { "  (this device)" } else { "" });
                let file = state.map(|state| format!("recovery file: {state}"));
                listed.iter().map(line).chain(file).collect::<Vec<_>>().join("\n")
            })
        }
        Device::Link { user, device, server } => {
            if context.is_open() {
                return Err(CliError::Usage("this profile is registered already: link a device in a new one".into()));
            }
            let (store, services, name) = context.prepare(&server, &user)?;
            let mut pending = Client::start_link(store, &services, &name, &device).await?;
            show_code(pending.code(), output)?;
            let until = Instant::now() + PATIENCE;
            loop {
                match pending.poll().await? {
                    Approval::Linked(client) => {
                        let answer = registered(&client, context)?;
                        context.opened(*client);
                        return output.give(&answer, |answer| format!("linked: {}", answer.client));
                    }
                    Approval::Waiting(waiting) if Instant::now() < until => pending = *waiting,
                    Approval::Waiting(_) => {
                        return Err(CliError::Refused("nobody approved this device within ten minutes".into()));
                    }
                }
                sleep(POLL).await;
            }
        }
        Device::Save { file, recovery_passphrase_file } => {
            recovery::save(&file, recovery_passphrase_file.as_deref(), context, output)
        }
        Device::Restore { file, recovery_passphrase_file, server } => {
            recovery::restore(&file, recovery_passphrase_file.as_deref(), &server, context, output).await
        }
        Device::Add { code, yes } => {
            let code: LinkCode = code.parse()?;
            let client = context.client()?;
            let request = client.link_request(&code).await?;
            if !yes && !confirmed(&format!("Add {} to your account?", request.client))? {
                return Err(CliError::Refused("not added".into()));
            }
            client.approve_link(&request).await?;
            let shown = names::show(client.user());
            output.give(&json!({ "approved": request.client }), |_| {
                format!("approved {} as a device of {shown}", request.client)
            })
        }
    }
}

/// The code is what the person needs now, so it is printed at once, in JSON, too.
pub(super) fn show_code(code: &LinkCode, output: &Output) -> Result<(), CliError> {
    let code = code.reveal();
    if output.is_json() {
        return print(&json!({ "code": &*code }).to_string());
    }
    print(&format!("On your first device, run:\n\n    conclave device add {}\n\nwaiting for approval ...", &*code))
}

fn confirmed(question: &str) -> Result<bool, CliError> {
    let io = |error| CliError::Io("the terminal".into(), error);
    if !std::io::stdin().is_terminal() {
        return Err(CliError::Usage("nobody is there to ask: use --yes".into()));
    }
    eprint!("{question} [y/N] ");
    std::io::stderr().flush().map_err(io)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(io)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
