//! `register`.

use conclave_client::{Client, Registration};
use serde::Serialize;

use crate::{args::Register, error::CliError, names, output::Output, profile::Context};

#[derive(Serialize)]
pub(super) struct Registered {
    pub(super) user: String,
    pub(super) client: String,
    pub(super) profile: String,
}

pub(super) fn registered(client: &Client, context: &Context) -> Result<Registered, CliError> {
    Ok(Registered {
        user: client.user().to_string(),
        client: client.client().to_string(),
        profile: context.directory()?.display().to_string(),
    })
}

pub(super) async fn run(args: Register, context: &mut Context, output: &Output) -> Result<(), CliError> {
    if context.is_open() {
        return Err(CliError::Usage("this profile is registered already".into()));
    }
    let (store, services, user) = context.prepare(&args.server, &args.user)?;
    let registration = Registration { user, device: args.device, invite: args.invite };
    let client = Client::register(store, &services, registration).await?;
    let answer = registered(&client, context)?;
    let shown = names::show(client.user());
    context.opened(client);
    output.give(&answer, |answer| {
        let mut text = format!("registered {shown}, device {}", answer.client);
        if !args.server.passphrase && args.server.key_file.is_none() {
            text.push_str(&format!(
                "\nthe profile's key lies in {}/store.key: whoever can read that can read your messages\n\
                 (use --passphrase for a profile that only you can open)",
                answer.profile
            ));
        }
        text
    })
}
