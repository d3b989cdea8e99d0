//! `device save`, `device restore`, `group recover`: an account and its groups after everything was lost.

use std::{
    io::{Read as _, Write as _},
    path::Path,
};

use conclave_client::{
    Asked, Asking, Client, ClientEvent, Event, LostGroup, RECOVERY_FILE_MAX, RecoveryError, RecoveryFile,
    RecoveryState, profile::Kdf,
};
use conclave_names::{GroupUri, UserUri};
use serde_json::json;

use super::{messages, register::registered};
use crate::{
    args::ServerArgs,
    error::CliError,
    names,
    output::{Output, clean_line},
    profile::{Context, recovery_passphrase},
};

impl From<RecoveryError> for CliError {
    fn from(error: RecoveryError) -> Self {
        Self::Refused(error.to_string())
    }
}

/// What no recovery brings back.
const GONE: &str = "What was said before the loss does not come back, and neither do invitations that waited for the lost device: ask to \
                    be added again.";

pub(super) fn save(
    file: &Path,
    passphrase: Option<&Path>,
    context: &mut Context,
    output: &Output,
) -> Result<(), CliError> {
    // It is asked for before the file is made; and a device that cannot make one does not ask.
    let recovery = context.client()?.recovery_file()?;
    let passphrase = recovery_passphrase(passphrase, true)?;
    if passphrase.is_empty() {
        return Err(CliError::Usage("a recovery file needs a passphrase: whoever opens the file is you".into()));
    }
    let sealed = recovery.seal(&passphrase, Kdf::default())?;
    let io = |error| CliError::Io(file.display().to_string(), error);
    let mut written = messages::create_private(file)?;
    written.write_all(&sealed).and_then(|()| written.sync_all()).map_err(io)?;
    context.client()?.recovery_saved(&recovery)?;
    let shown = json!({ "file": file, "client": recovery.client(), "groups": recovery.groups() });
    output.give(&shown, |_| {
        format!(
            "saved your identity key and the names of {} groups to {}\nKeep it apart from this device, and save anew when `conclave status` \
             says so, because you are in other groups: who has the file and its passphrase is you.",
            recovery.groups().len(),
            file.display()
        )
    })
}

/// How the recovery file stands, for people.
pub(super) fn state(client: &Client, state: &RecoveryState) -> Result<String, CliError> {
    let of = |groups: &[GroupUri]| -> Result<String, CliError> {
        let all = client.groups()?;
        let titles = all.iter().filter(|group| groups.contains(&group.name)).map(|group| clean_line(&group.title));
        Ok(titles.map(|title| format!("\"{title}\"")).collect::<Vec<_>>().join(", "))
    };
    let Some(saved) = state.saved else {
        return Ok(
            "none: if this device is lost, so are account and groups; `conclave device save FILE` makes one".to_owned()
        );
    };
    let mut text = format!("of {}", messages::when(saved));
    if !state.left.is_empty() {
        text += &format!("; it names {} that you have left since", count(&state.left));
    }
    if !state.is_current() {
        text += &format!(
            "; OUT OF DATE: it does not bring back {} ({}): `conclave device save FILE` makes a new one",
            count(&state.missing),
            of(&state.missing)?
        );
    }
    Ok(text)
}

fn count(groups: &[GroupUri]) -> String {
    format!("{} group{}", groups.len(), if groups.len() == 1 { "" } else { "s" })
}

/// Tells a person of a group which the recovery file does not bring back, where this device has just come into one. Who never saved a
/// file is not told each time. If it is not to be found out, what was done is done all the same.
pub(super) fn remind(client: &mut Client, output: &Output) {
    if output.is_json() {
        return;
    }
    if let Ok(Some(now)) = client.recovery_state()
        && now.saved.is_some()
        && !now.is_current()
        && let Ok(text) = state(client, &now)
    {
        output.note(&format!("your recovery file: {text}"));
    }
}

/// The same after events, if one of them is a reason to.
pub(super) fn remind_after(events: &[ClientEvent], client: &mut Client, output: &Output) {
    if events.iter().any(|happened| matches!(happened.event, Event::Joined { .. })) {
        remind(client, output);
    }
}

pub(super) async fn restore(
    file: &Path,
    passphrase: Option<&Path>,
    server: &ServerArgs,
    context: &mut Context,
    output: &Output,
) -> Result<(), CliError> {
    if context.is_open() {
        return Err(CliError::Usage("this profile is registered already: restore an account in a new one".into()));
    }
    let io = |error| CliError::Io(file.display().to_string(), error);
    let mut sealed = Vec::new();
    let opened = std::fs::File::open(file).map_err(io)?;
    opened.take(RECOVERY_FILE_MAX as u64 + 1).read_to_end(&mut sealed).map_err(io)?;
    let recovery = RecoveryFile::open(&sealed, &recovery_passphrase(passphrase, false)?)?;
    let (store, services, _) = context.prepare(server, &names::show(recovery.client().user()))?;
    let mut client = Client::restore(store, &services, &recovery).await?;
    let account = registered(&client, context)?;
    let asked = client.ask_for_groups(&[]).await;
    let (lost, asking) = (client.lost_groups()?, client.asking().cloned());
    let shown = names::show(client.user());
    context.opened(client);
    let (asked, problem) = match asked {
        Ok(asked) => (asked, None),
        Err(error) => (Asked::default(), Some(error.to_string())),
    };
    let answer = json!({
        "user": account.user,
        "client": account.client,
        "profile": account.profile,
        "saved_ms": recovery.saved(),
        "asked": asked,
        "lost": lost,
        "asking": asking,
        "problem": problem,
    });
    output.give(&answer, |_| {
        let mut text = format!("restored {shown}, device {}\n", account.client);
        match &problem {
            Some(problem) => {
                text.push_str(&format!("nobody could be asked yet ({problem}): the next `conclave sync` does"));
            }
            None => text.push_str(&told(&asked, &lost, asking.as_ref())),
        }
        text
    })
}

pub(super) async fn recover(client: &mut Client, users: &[UserUri], output: &Output) -> Result<(), CliError> {
    let rounds = |client: &Client| client.asking().map(|asking| (asking.since, asking.rounds));
    let before = rounds(client);
    // Perhaps somebody has answered meanwhile; and perhaps this asks already.
    client.sync().await?;
    let asked = match client.asking() {
        Some(asking) if users.is_empty() && rounds(client) != before => asking.last_round(),
        _ => client.ask_for_groups(users).await?,
    };
    give(client, &asked, output)
}

pub(super) fn show(client: &Client, output: &Output) -> Result<(), CliError> {
    let asked = client.asking().map(Asking::last_round).unwrap_or_default();
    give(client, &asked, output)
}

fn give(client: &Client, asked: &Asked, output: &Output) -> Result<(), CliError> {
    let (lost, asking) = (client.lost_groups()?, client.asking());
    output.give(&json!({ "asked": asked, "lost": lost, "asking": asking }), |_| told(asked, &lost, asking))
}

/// Who was asked, who is asked again when, and what is not healed.
fn told(asked: &Asked, lost: &[LostGroup], asking: Option<&Asking>) -> String {
    let mut lines = Vec::new();
    if asked.devices.is_empty() {
        lines.push("nobody was asked: name a member of your groups: `conclave group recover USER`".to_owned());
    } else {
        let names: Vec<_> = asked.devices.iter().map(ToString::to_string).collect();
        lines.push(format!(
            "asked {}\nEach lets this device into the groups that both were in when it is next online; `conclave sync` then joins them.",
            names.join(", ")
        ));
    }
    lines.extend(asked.unable.iter().map(|unable| format!("not asked: {}: {}", unable.who, unable.reason)));
    for group in lost {
        let title = clean_line(&group.title);
        lines.push(if group.users.is_empty() {
            format!("not back: \"{title}\" ({}): nobody else of it is known, so it comes back only if a member that you name answers", group.group)
        } else {
            format!("not back yet: \"{title}\" ({})", group.group)
        });
    }
    if let Some(asking) = asking {
        let since = messages::when(asking.since);
        let times = if asking.rounds == 1 { "once".to_owned() } else { format!("{} times", asking.rounds) };
        let earlier: Vec<_> = asking
            .devices
            .iter()
            .filter(|(client, _)| !asked.devices.contains(client))
            .map(|(client, at)| format!("{client} ({})", messages::when(*at)))
            .collect();
        if !earlier.is_empty() {
            lines.push(format!("asked before: {}", earlier.join(", ")));
        }
        lines.push(match asking.next {
            Some(next) => format!(
                "asked {times} since {since}; `conclave sync` or `listen` asks again, others first, from {} on, until the groups are \
                 back. `conclave group recover --give-up` ends that.",
                messages::when(next)
            ),
            None => format!("asked {times} since {since}, and not again by itself: `conclave group recover` begins anew."),
        });
    }
    lines.push("Groups of which nobody was asked, and those that you were removed from, stay lost. ".to_owned() + GONE);
    lines.join("\n")
}
