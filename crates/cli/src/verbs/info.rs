//! `status`, `key-packages`, `man`.

use std::path::PathBuf;

use clap::CommandFactory as _;
use serde_json::json;

use super::{group::word, recovery};
use crate::{args::Args, error::CliError, names, output::Output, profile::Context};

pub(super) async fn key_packages(context: &mut Context, output: &Output) -> Result<(), CliError> {
    let client = context.client()?;
    client.refill_key_packages().await?;
    let stock = client.key_package_stock().await?;
    output.give(&json!({ "suites": stock }), |_| {
        let line = |suite: &conclave_client::SuiteStock| {
            let last = match (suite.last_resort, suite.last_resort_used) {
                (false, _) => "no last resort",
                (true, false) => "a last resort",
                (true, true) => "a last resort, used",
            };
            format!("cipher suite {}: {} KeyPackages, {last}", suite.cipher_suite, suite.available)
        };
        stock.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}

pub(super) async fn status(context: &mut Context, output: &Output) -> Result<(), CliError> {
    let directory = context.directory()?.display().to_string();
    let client = context.client()?;
    let synced = client.sync().await;
    let (reachable, problem) = match &synced {
        Ok(_) => (true, None),
        Err(error) => (false, Some(error.to_string())),
    };
    let groups = client.groups()?;
    let mut pending = 0;
    for group in groups.iter().filter(|group| group.status == conclave_client::Status::Active) {
        pending += client.group(&group.name)?.intents().count();
    }
    let stuck: Vec<_> =
        groups.iter().filter(|group| word(&group.status) == "stuck").map(|group| group.title.clone()).collect();
    let (lost, asking) = (client.lost_groups()?.len(), client.asking().cloned());
    let saved = client.recovery_state()?;
    let file = saved.as_ref().map(|saved| recovery::state(client, saved)).transpose()?;
    let shown = names::show(client.user());
    let answer = json!({
        "user": client.user(),
        "client": client.client(),
        "profile": directory,
        "holds_identity_key": client.holds_identity(),
        "certificate_ends": client.certificate_ends().map(conclave_names::Timestamp::as_secs),
        "server_reachable": reachable,
        "problem": problem,
        "groups": groups.len(),
        "stuck_groups": stuck,
        "lost_groups": lost,
        "asking": asking,
        "pending": pending,
        "recovery": saved,
    });
    output.give(&answer, |answer| {
        format!(
            "account        {shown}, device {}{}\nprofile        {directory}\nserver         {}\ngroups         {}{}{}\n\
             to be sent     {pending}{}",
            client.client().device(),
            if client.holds_identity() { " (holds the identity key)" } else { "" },
            problem.as_deref().map_or_else(|| "reachable, all caught up".to_owned(), |why| format!("PROBLEM: {why}")),
            answer["groups"],
            if stuck.is_empty() { String::new() } else { format!(" (cannot be followed: {})", stuck.join(", ")) },
            match (lost, &asking) {
                (0, None) => String::new(),
                (0, Some(_)) => " (asking to be let in again; see `conclave group recover --show`)".to_owned(),
                (lost, _) => format!(" (lost: {lost}; see `conclave group recover --show`)"),
            },
            file.map(|file| format!("\nrecovery file  {file}")).unwrap_or_default(),
        )
    })
}

pub(super) fn man(directory: Option<PathBuf>) -> Result<(), CliError> {
    let command = Args::command();
    match directory {
        None => clap_mangen::Man::new(command)
            .render(&mut std::io::stdout())
            .map_err(|error| CliError::Io("standard output".into(), error)),
        Some(directory) => {
            let io = |error| CliError::Io(directory.display().to_string(), error);
            std::fs::create_dir_all(&directory).map_err(io)?;
            clap_mangen::generate_to(command, &directory).map_err(io)
        }
    }
}
