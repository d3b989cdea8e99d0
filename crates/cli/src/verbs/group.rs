//! `group …` and `update`.

use conclave_client::{Client, DisputePause, GroupSummary, Handshakes, Leaving, Membership, MembershipChange, Status};
use conclave_names::{GroupUri, Hash, UserUri};
use serde::Serialize;
use serde_json::json;

use crate::{
    args::Group,
    error::CliError,
    names,
    output::{Output, clean_line},
    profile::Context,
    verbs::{messages, recovery, settings},
};

#[derive(Serialize)]
struct Listed {
    group: String,
    title: String,
    members: u32,
    epoch: u64,
    status: &'static str,
}

#[derive(Serialize)]
pub(super) struct Info {
    group: String,
    title: String,
    room: String,
    hub: String,
    channel: String,
    status: &'static str,
    pub(super) epoch: u64,
    epoch_authenticator: String,
    cipher_suite: u16,
    handshakes: &'static str,
    dispute_pause_s: u64,
    external_senders: Vec<String>,
    members: usize,
    position: u64,
    chain: Hash,
    pending: usize,
}

pub(super) fn word(status: &Status) -> &'static str {
    match status {
        Status::Active => "active",
        Status::Removed => "removed",
        Status::Stuck { .. } => "stuck",
    }
}

fn handshakes_word(visible: bool) -> &'static str {
    if visible { "visible" } else { "private" }
}

/// A group that is named so, after everything waiting was read: it may go on in another by then.
async fn read(client: &mut Client, text: &str) -> Result<GroupUri, CliError> {
    let group = names::group(client, text)?;
    client.sync().await?;
    Ok(client.current(&group)?)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn users(client: &Client, texts: &[String]) -> Result<Vec<UserUri>, CliError> {
    texts.iter().map(|text| names::user(text, client.user().domain())).collect()
}

/// What a change leaves the group at.
fn at(client: &mut Client, group: &GroupUri) -> Result<u64, CliError> {
    Ok(client.group(group)?.epoch().0)
}

pub(super) async fn run(verb: Group, context: &mut Context, output: &Output) -> Result<(), CliError> {
    let client = context.client()?;
    match verb {
        Group::Create { title, visible, suite, dispute_pause } => {
            let handshakes =
                if visible { Handshakes::Visible { external_senders: Vec::new() } } else { Handshakes::Private };
            // The arguments' parser knows the bounds.
            let pause = dispute_pause.and_then(|seconds| DisputePause::new(seconds.saturating_mul(1000)));
            let group = client.create_group_as(&title, handshakes, suite, pause.unwrap_or_default()).await?;
            let (suite, mode) = (client.group(&group)?.cipher_suite(), handshakes_word(visible));
            let made = json!({ "group": group, "title": title, "epoch": 0, "handshakes": mode, "cipher_suite": suite });
            output.give(&made, |_| format!("made the group \"{}\": {group}", clean_line(&title)))?;
            recovery::remind(client, output);
            Ok(())
        }
        Group::Add { group, users: texts } => {
            let group = names::group(client, &group)?;
            let users = users(client, &texts)?;
            let added = client.add(&group, &users).await?;
            let epoch = at(client, &group)?;
            output.give(&json!({ "group": group, "epoch": epoch, "added": added }), |_| {
                let mut text = match added.clients.as_slice() {
                    [] => "all their devices are members already".to_owned(),
                    clients => {
                        let names: Vec<_> = clients.iter().map(ToString::to_string).collect();
                        format!("added {}", names.join(", "))
                    }
                };
                for client in &added.without_key_packages {
                    text.push_str(&format!(
                        "\nnot added: {client} has left no keying material; it must come online first"
                    ));
                }
                for unable in &added.unable {
                    text.push_str(&format!("\nnot added: {}: {}", unable.client, unable.reason));
                }
                text
            })
        }
        Group::Remove { group, users: texts } => {
            let group = names::group(client, &group)?;
            let users = users(client, &texts)?;
            client.remove(&group, &users).await?;
            let epoch = at(client, &group)?;
            output.give(&json!({ "group": group, "epoch": epoch, "removed": users }), |_| {
                let names: Vec<_> = users.iter().map(names::show).collect();
                format!("removed {}; what is said from now on is sealed with keys they do not have", names.join(", "))
            })
        }
        Group::Leave { group } => {
            let group = names::group(client, &group)?;
            let leaving = client.leave(&group).await?;
            let group = client.current(&group)?;
            let (left, told) = (leaving != Leaving::Asked, leaving != Leaving::Unheard);
            output.give(&json!({ "group": group, "left": left, "told": told }), |_| {
                let text = match leaving {
                    Leaving::Left => "you left the group",
                    Leaving::Asked => "asked to be removed; the next member that comes online carries it out",
                    Leaving::Unheard => {
                        "you left the group on this device alone: it could not follow the group any more, so the others were not told, and \
                         show it as a member until one of them removes it"
                    }
                };
                text.to_owned()
            })
        }
        Group::Reinit { group, suite, visible, private } => {
            let group = read(client, &group).await?;
            let of = client.group(&group)?;
            let (suite, visible) = (suite.unwrap_or(of.cipher_suite()), visible || (of.is_visible() && !private));
            let now = client.reinit(&group, suite, visible).await?;
            let answer = json!({ "group": now, "made_anew": now != group, "was": group });
            output.give(&answer, |_| {
                if now == group {
                    "the group is frozen; it goes on, with what is said meanwhile, once another member was online"
                        .to_owned()
                } else {
                    format!("the group goes on as {now}")
                }
            })
        }
        Group::Members { group } => {
            let group = read(client, &group).await?;
            let members = client.group(&group)?.members().map_err(conclave_client::ClientError::from)?;
            output.give(&json!({ "group": group, "members": members }), |_| {
                let line = |member: &conclave_client::Member| {
                    let note = match (member.own, member.confirmed) {
                        (true, _) => "  (you)",
                        (_, false) => "  (not heard of since it was added)",
                        _ => "",
                    };
                    format!("{}{note}", member.client)
                };
                members.iter().map(line).collect::<Vec<_>>().join("\n")
            })
        }
        Group::Verify { group } => {
            let group = read(client, &group).await?;
            let info = info(client, &group)?;
            let shown = json!({
                "group": info.group,
                "epoch": info.epoch,
                "epoch_authenticator": info.epoch_authenticator,
            });
            output.give(&shown, |_| {
                let bytes = info.epoch_authenticator.as_bytes();
                let blocks: Vec<_> = bytes.chunks(4).map(|block| String::from_utf8_lossy(block).into_owned()).collect();
                let rows: Vec<_> = blocks.chunks(8).map(|row| row.join(" ")).collect();
                format!(
                    "epoch {}\n{}\n\nCompare this with other members in the same epoch, in person or by telephone: if it differs, they are in \
                     another branch of the group.",
                    info.epoch,
                    rows.join("\n")
                )
            })
        }
        Group::Log { group } => {
            let group = read(client, &group).await?;
            let log = client.membership_log(&group)?;
            output
                .give(&json!({ "group": group, "log": log }), |_| log.iter().map(change).collect::<Vec<_>>().join("\n"))
        }
        Group::GoOn { group } => {
            let group = read(client, &group).await?;
            let gone_on = client.go_on_without(&group).await?;
            let answer = json!({ "group": gone_on.group, "was": group, "without": gone_on.without });
            output.give(&answer, |_| {
                let mut text = if gone_on.group == group {
                    "the group goes on as soon as the server shows it: `conclave sync`".to_owned()
                } else {
                    format!("the group goes on as {}", gone_on.group)
                };
                for absent in &gone_on.without {
                    text.push_str(&format!("\nwithout {}", clean_line(absent)));
                }
                text
            })
        }
        Group::Rejoin { group, trust } => {
            let group = names::group(client, &group)?;
            let lost = matches!(client.group(&group)?.status(), Status::Stuck { .. });
            let events = match &trust {
                Some(text) => {
                    let trusted = names::device(text, client.user().domain())?;
                    let trusted = trusted.ok_or_else(|| {
                        CliError::Usage(format!("{text} is no device: say which, e.g. `{text}/laptop`"))
                    })?;
                    client.rejoin_trusting(&group, &trusted).await?
                }
                None => client.rejoin(&group).await?,
            };
            let epoch = at(client, &group)?;
            output.give(&json!({ "group": group, "epoch": epoch, "events": events }), |_| {
                let word = if lost { "you are back" } else { "this device follows the group: nothing was to be done" };
                word.to_owned()
            })
        }
        Group::Recover { give_up: true, .. } => {
            let lost = client.lost_groups()?;
            client.forget_lost_groups()?;
            output.give(&json!({ "given_up": lost }), |_| format!("given up: {}", lost.len()))
        }
        Group::Recover { show: true, .. } => recovery::show(client, output),
        Group::Recover { users: texts, .. } => {
            let users = users(client, &texts)?;
            recovery::recover(client, &users, output).await
        }
        Group::Fill { group, client: whom } => {
            let group = read(client, &group).await?;
            settings::fill(&group, whom.as_deref(), client, output).await
        }
        Group::Heartbeat { group } => {
            let group = names::group(client, &group)?;
            client.heartbeat(&group).await?;
            output.give(&json!({ "group": group }), |_| "said where this device stands".to_owned())
        }
        Group::List => {
            let groups = client.groups()?;
            let listed: Vec<_> = groups.iter().filter(|group| group.successor.is_none()).map(listed).collect();
            output.give(&json!({ "groups": listed }), |_| {
                if listed.is_empty() {
                    return "no groups yet: `conclave group create TITLE` makes one".to_owned();
                }
                let line = |group: &Listed| {
                    format!(
                        "{:<30} {:>4} members  epoch {:<5} {:<8} {}",
                        clean_line(&group.title),
                        group.members,
                        group.epoch,
                        group.status,
                        group.group
                    )
                };
                listed.iter().map(line).collect::<Vec<_>>().join("\n")
            })
        }
        Group::Info { group } => {
            let group = read(client, &group).await?;
            let info = info(client, &group)?;
            output.give(&info, |info| {
                format!(
                    "group          {}\ntitle          {}\nroom           {}\nhub            {}\nstatus         {}\n\
                     members        {}\nepoch          {}\nauthenticator  {}\ncipher suite   {}\nhandshakes     {}\n\
                     dispute pause  {} s\nplace          entry {} ({})\nunder way      {}",
                    info.group,
                    clean_line(&info.title),
                    info.room,
                    info.hub,
                    info.status,
                    info.members,
                    info.epoch,
                    info.epoch_authenticator,
                    info.cipher_suite,
                    info.handshakes,
                    info.dispute_pause_s,
                    info.position,
                    info.chain,
                    info.pending
                )
            })
        }
    }
}

/// A change of the members, for people.
fn change(change: &MembershipChange) -> String {
    let by = change.by.as_ref().map_or_else(|| "somebody".to_owned(), ToString::to_string);
    let members = change.members.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let what = match change.change {
        Membership::Joined => format!("this device joined, added by {by}"),
        Membership::Added => format!("{by} added {members}"),
        Membership::Removed => format!("{by} removed {members}"),
        Membership::Renewed => format!("{by} renewed its keys"),
        Membership::KeyChanged => format!("{by} changed its signature key; its identity key is the same as before"),
        Membership::Rejoined => format!("{by} came back"),
        Membership::Readmitted => format!("{by} let {members} in again"),
        Membership::CameMeanwhile => {
            format!("while this device was away, {members} came; by whom they were added is not known")
        }
        Membership::WentMeanwhile => {
            format!("while this device was away, {members} went; by whom they were removed is not known")
        }
        Membership::RemovedHere => format!("{by} removed this device"),
        Membership::MadeAnew => "the group was made anew; epochs and places begin again".to_owned(),
        Membership::Void => "this device's membership was annulled".to_owned(),
        _ => "something that this version cannot show".to_owned(),
    };
    let epoch = change.epoch.map(|epoch| format!("epoch {epoch}")).unwrap_or_default();
    let annulled = if change.annulled { "  (annulled)" } else { "" };
    format!("{}  {epoch:<10}  {what}{annulled}", messages::when(change.time))
}

fn listed(group: &GroupSummary) -> Listed {
    Listed {
        group: group.name.to_string(),
        title: group.title.clone(),
        members: group.members,
        epoch: group.epoch.0,
        status: word(&group.status),
    }
}

pub(super) fn info(client: &mut Client, name: &GroupUri) -> Result<Info, CliError> {
    let group = client.group(name)?;
    let profile = group.profile();
    Ok(Info {
        group: name.to_string(),
        title: profile.title.clone(),
        room: profile.room.to_string(),
        hub: profile.hub.to_string(),
        channel: profile.channel.to_string(),
        status: word(group.status()),
        epoch: group.epoch().0,
        epoch_authenticator: hex(&group.epoch_authenticator().map_err(conclave_client::ClientError::from)?),
        cipher_suite: group.cipher_suite(),
        handshakes: handshakes_word(group.is_visible()),
        dispute_pause_s: group.profile().dispute_pause.ms() / 1000,
        external_senders: group.external_senders().iter().map(ToString::to_string).collect(),
        members: group.members().map_err(conclave_client::ClientError::from)?.len(),
        position: group.position().seq.0,
        chain: group.position().hash,
        pending: group.intents().count(),
    })
}

pub(super) async fn update(group: &str, context: &mut Context, output: &Output) -> Result<(), CliError> {
    let client = context.client()?;
    let group = names::group(client, group)?;
    client.update(&group).await?;
    let epoch = at(client, &group)?;
    output.give(&json!({ "group": group, "epoch": epoch }), |_| {
        format!("your keys in the group are new; it is in epoch {epoch}")
    })
}
