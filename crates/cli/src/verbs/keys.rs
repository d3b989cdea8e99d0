//! `keys …`.

use conclave_client::{Client, Rotated};
use conclave_names::{GroupUri, Hash};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::device::{PATIENCE, POLL, show_code};
use crate::{args::Keys, error::CliError, output::Output, profile::Context};

pub(super) async fn run(verb: &Keys, context: &mut Context, output: &Output) -> Result<(), CliError> {
    let client = context.client()?;
    match verb {
        Keys::Rotate => {
            let Rotated { waiting, problem, .. } =
                if client.holds_identity() { client.rotate_keys().await? } else { by_approval(client, output).await? };
            let titles = titles(client, &waiting)?;
            let key = Hash::new(client.signature_key()).to_string();
            let answer = json!({
                "signature_key": key,
                "waiting_groups": titles,
                "problem": problem.as_ref().map(ToString::to_string),
            });
            output.give(&answer, |_| {
                let mut text = format!("this device signs with a new key now: {key}");
                if !titles.is_empty() {
                    text += &format!("\nthese groups learn of it with the next syncs: {}", titles.join(", "));
                }
                if let Some(problem) = &problem {
                    text += &format!("\nnot everything could be done yet: {problem}");
                }
                text
            })
        }
        Keys::Show => {
            let waiting = client.groups_without_new_key()?;
            let titles = titles(client, &waiting)?;
            let (key, former) = (Hash::new(client.signature_key()).to_string(), client.former_signature_keys());
            let ends = client.certificate_ends().map(conclave_names::Timestamp::as_secs);
            let answer = json!({
                "signature_key": key,
                "certificate_ends": ends,
                "former_keys": former,
                "waiting_groups": titles,
            });
            output.give(&answer, |_| {
                let mut text = format!("signature key  {key}");
                if former > 0 {
                    text += &format!("\nformer keys    {former}, kept for groups and invitations that may need them");
                }
                if !titles.is_empty() {
                    text += &format!("\nnot yet in     {}", titles.join(", "));
                }
                text
            })
        }
    }
}

/// On a device that was linked: the one with the identity key approves.
async fn by_approval(client: &mut Client, output: &Output) -> Result<Rotated, CliError> {
    let pending = client.ask_to_rotate().await?;
    show_code(pending.code(), output)?;
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(rotated) = client.rotate_if_approved(&pending).await? {
            return Ok(rotated);
        }
        if Instant::now() >= until {
            return Err(CliError::Refused(
                "nobody approved the new key within ten minutes; nothing has changed".into(),
            ));
        }
        sleep(POLL).await;
    }
}

fn titles(client: &Client, groups: &[GroupUri]) -> Result<Vec<String>, CliError> {
    let all = client.groups()?;
    let title = |name: &GroupUri| all.iter().find(|group| group.name == *name).map(|group| group.title.clone());
    Ok(groups.iter().filter_map(title).collect())
}
