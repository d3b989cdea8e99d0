//! `send`, `read`, `listen`, `sync`, `export`.

use std::{
    fs::{File, OpenOptions},
    io::{BufWriter, Read as _, Write as _},
    path::{Path, PathBuf},
};

use conclave_client::{ClientEvent, Event, HistoryEntry, HistoryItem, ProposedChange};
use conclave_names::{ClientUri, Seq, Timestamp};
use serde_json::json;

use super::recovery;
use crate::{
    error::CliError,
    names,
    output::{Output, clean, clean_line},
    profile::Context,
};

/// Items in one page of an export.
const PAGE: usize = 1000;

pub(super) async fn send(
    group: &str,
    text: &str,
    to_all: bool,
    context: &mut Context,
    output: &Output,
) -> Result<(), CliError> {
    let text = if text == "-" {
        let mut read = String::new();
        std::io::stdin().read_to_string(&mut read).map_err(|e| CliError::Io("standard input".into(), e))?;
        read
    } else {
        text.to_owned()
    };
    if text.is_empty() {
        return Err(CliError::Usage("there is nothing to say".into()));
    }
    let client = context.client()?;
    let group = names::group(client, group)?;
    let id = if to_all { client.send_to_all(&group, &text).await? } else { client.send(&group, &text).await? };
    output.give(&json!({ "group": group, "id": id.to_string() }), |_| "sent".to_owned())
}

pub(super) async fn read(
    group: &str,
    limit: Option<usize>,
    offline: bool,
    context: &mut Context,
    output: &Output,
) -> Result<(), CliError> {
    let client = context.client()?;
    if !offline {
        let events = client.sync().await?;
        recovery::remind_after(&events, client, output);
    }
    let group = names::group(client, group)?;
    let items = match limit {
        Some(limit) => client.recent(&group, limit)?,
        None => client.history(&group, Seq(0), usize::MAX)?,
    };
    output.give(&json!({ "group": group, "items": items }), |_| items.iter().map(item).collect::<Vec<_>>().join("\n"))
}

/// `YYYY-MM-DD HH:MM` in UTC.
pub(super) fn when(time: Timestamp) -> String {
    let days = i64::try_from(time.as_secs() / 86_400).unwrap_or_default();
    let (hour, minute) = (time.as_secs() / 3600 % 24, time.as_secs() / 60 % 60);
    // Days since 0000-03-01, in eras of 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}")
}

fn item(item: &HistoryItem) -> String {
    let what = match &item.entry {
        HistoryEntry::Message { sender, text, .. } => {
            let text = text.as_deref().map_or_else(|| "(something that is not text)".to_owned(), clean);
            format!("{}: {text}", sender.user().name())
        }
        HistoryEntry::Told { sender, text, teller, .. } => {
            let text = text.as_deref().map_or_else(|| "(something that is not text)".to_owned(), clean);
            format!("{}: {text} (as {} tells it)", sender.user().name(), short(teller))
        }
        HistoryEntry::Change { change } => format!("* {}", describe(change)),
        _ => "(something that this version cannot show)".to_owned(),
    };
    format!("{}  {what}", when(item.time))
}

/// A device as people write it: `alice/laptop`.
fn short(name: &ClientUri) -> String {
    let text = name.to_string();
    text.rsplit("/d/").next().unwrap_or(&text).to_owned()
}

/// A change of the group in words, from its JSON.
fn describe(change: &serde_json::Value) -> String {
    // One of a later version has at least a name.
    let unknown = || clean_line(change["event"].as_str().unwrap_or("something that this version cannot show"));
    serde_json::from_value(change.clone()).map_or_else(|_| unknown(), |event| sentence(&event))
}

/// What happened, in words: every event has its own, and what came from others is shown on one line.
fn sentence(event: &Event) -> String {
    let name = short;
    let maybe = |who: &Option<ClientUri>| who.as_ref().map_or_else(|| "somebody".to_owned(), name);
    let names = |all: &[ClientUri]| all.iter().map(name).collect::<Vec<_>>().join(", ");
    let change = |proposed: &ProposedChange| match proposed {
        ProposedChange::Add(added) => format!("to add {}", name(added)),
        ProposedChange::Remove(removed) => format!("to remove {}", name(removed)),
        ProposedChange::Other => "a change".to_owned(),
    };
    match event {
        Event::Message { sender, text, .. } => {
            let text = text.as_deref().map_or_else(|| "(something that is not text)".to_owned(), clean_line);
            format!("{}: {text}", sender.user().name())
        }
        Event::Added { by, members, .. } => format!("{} added {}", name(by), names(members)),
        Event::Removed { by, members, .. } => format!("{} removed {}", name(by), names(members)),
        Event::Updated { by, .. } => format!("{} renewed keys", name(by)),
        Event::KeyChanged { member, .. } => {
            format!("{} changed its signature key; its identity key is the same as before", name(member))
        }
        Event::Frozen { by, .. } => {
            format!("{} makes the group anew; what is said waits until it goes on", name(by))
        }
        Event::Succeeded { .. } => "the group goes on with new keys".to_owned(),
        Event::WentOnWithout { by, absent, .. } => {
            let names: Vec<_> = absent.iter().map(name).collect();
            format!(
                "{} has the group go on in a new one, without {}, who could not be reached in a week",
                name(by),
                names.join(", ")
            )
        }
        Event::SuccessorWaits { reason } => format!("the group cannot go on yet: {}", clean_line(reason)),
        Event::LeaveRequested { member } => format!("{} asks to leave", name(member)),
        Event::ExternalProposal { sender, proposal } => {
            format!("{}, who is no member, proposes {}", maybe(sender), change(proposal))
        }
        Event::ProposalsLeftOut { proposals, reason } => {
            let what: Vec<_> = proposals.iter().map(change).collect();
            format!("what was proposed ({}) is left out: {}", what.join(", "), clean_line(reason))
        }
        Event::Joined { by, .. } => format!("you joined, added by {}", name(by)),
        Event::Rejoined { member, .. } => format!("{} is back", name(member)),
        Event::Readmitted { by, members, .. } => format!("{} let {} in again", name(by), names(members)),
        Event::CameMeanwhile { members, .. } => {
            format!("while this device was away, {} came; by whom they were added is not known", names(members))
        }
        Event::WentMeanwhile { members, .. } => {
            format!("while this device was away, {} went; by whom they were removed is not known", names(members))
        }
        Event::Knocked { members, .. } => format!("you asked {} to let you in again", names(members)),
        Event::Missed { from, to } => format!("what was said from entry {from} to {to} cannot be read here"),
        Event::GapRequested { member, messages, .. } => format!(
            "{0} is back and asks for {messages} messages that it missed, which you have: if it is who it says, `conclave group fill GROUP {0}` \
             tells it",
            name(member)
        ),
        Event::GapAnswered { member, messages, left_out } => {
            let more = if *left_out == 0 { String::new() } else { format!("; {left_out} older ones did not fit") };
            format!("you told {} {messages} messages that it had missed{more}", name(member))
        }
        Event::GapFilled { by, messages, complete } => {
            let more = if *complete { "" } else { ", and goes on" };
            format!("{} told you {messages} messages that you had missed{more}: what they say is its word", name(by))
        }
        Event::RejoinBlocked { reason, doubtful: true, signer } => {
            let whom = signer.as_ref().map(ToString::to_string).unwrap_or_default();
            format!(
                "the group cannot be followed, and {}; `conclave group rejoin GROUP --trust {}` comes back all the same",
                clean_line(reason),
                clean_line(&whom)
            )
        }
        Event::RejoinBlocked { reason, doubtful: false, .. } => {
            format!("the group cannot be followed: {}", clean_line(reason))
        }
        Event::GivenUp { reason } => format!("you are out of the group: {}", clean_line(reason)),
        Event::Misled { by, commit } => format!(
            "this device came back by what {0} had left at the server, and members could not apply its commit {commit}: unless they had another \
             reason, that was false; nothing of {0} is taken for a while, and members are asked",
            name(by)
        ),
        Event::FalseGroupInfo { by: Some(by), .. } => format!(
            "WARNING: what {} left at the server for devices that come back leads nowhere: nothing of it is taken for a while, and this device \
             has put something true in its place",
            name(by)
        ),
        Event::FalseGroupInfo { by: None, .. } => {
            "WARNING: what the server has for devices that come back leads nowhere: this device has put something true \
             in its place"
                .to_owned()
        }
        Event::RemovedFromGroup { by } => format!("you were removed by {}", name(by)),
        Event::Refused { reason, .. } => format!("an entry was refused: {}", clean_line(reason)),
        Event::Stuck { reason, .. } => {
            format!("the group cannot be followed: {}; this device tries to come back by itself", clean_line(reason))
        }
        Event::Undecided { commit, by, removed, missing, reason, .. } => format!(
            "{0} says to have removed {removed} members by commit {commit}, which this device cannot apply ({1}): \
             either others can, and this device comes back or asks to be let in; or it is false, and is taken back if \
             {missing} more members at most come online within a week of it and cannot apply it either; else make a new \
             group without {0}",
            maybe(by),
            clean_line(reason)
        ),
        Event::PositionGone { reason, .. } => clean_line(reason),
        Event::NotApplied { commit, by, reason, .. } => {
            let why = reason.as_deref().map(|reason| format!(": {}", clean_line(reason))).unwrap_or_default();
            format!("{} could not apply commit {commit}{why}", maybe(by))
        }
        Event::Disputed { commit } => {
            format!(
                "a member cannot apply commit {commit}: unless another confirms it within the group's pause (`group info`), it is taken back"
            )
        }
        Event::Acknowledged { commit, by, .. } => format!("{} confirms commit {commit}: it stands", maybe(by)),
        Event::Annulled { commit, .. } => format!("commit {commit} and what followed it were taken back"),
        Event::NotAnnulled { commit } => format!(
            "commit {commit} and what followed it were not taken back after all: this machine's clock is ahead of the server's, or the \
             server held back what members had said"
        ),
        Event::InvitationAnnulled {} => "the change that added you was taken back: you are no member".to_owned(),
        Event::InvitationWaits { reason } => {
            format!("you were invited and cannot join yet: {}; it is tried again for a week", clean_line(reason))
        }
        Event::InvitationDropped { reason } => {
            format!(
                "an invitation could not be taken up: {}; if the group shows this device as a member, have it removed and added again",
                clean_line(reason)
            )
        }
        Event::LogsDiffer { member, .. } => {
            format!("WARNING: {} saw another log than you did: the server shows two, or this member lies", name(member))
        }
        Event::Unseen { .. } => {
            "nobody has shown to have seen what you said: they are all away, or the server withholds it".to_owned()
        }
        Event::ReceiptInvalid { .. } => {
            "WARNING: the server does not sign for what it takes, or with another key".to_owned()
        }
        Event::ReceiptBroken { seq, receipt } => format!(
            "WARNING: the server shows another log at entry {seq} than it signed for; what it signed: {}",
            clean_line(receipt)
        ),
        Event::Withheld { seq, receipt } => format!(
            "WARNING: the server signed for your entry {seq} and does not show it; what it signed: {}",
            clean_line(receipt)
        ),
        Event::Equivocation { proof, .. } => {
            format!("WARNING: the server signed for two logs; the proof: {}", clean_line(proof))
        }
        Event::IdentityChanged { user } => format!(
            "WARNING: the identity key of {} has changed: compare safety numbers (`conclave verify`)",
            names::show(user)
        ),
        Event::MessagesMissing { member, epoch, from, to } => format!(
            "messages {from} to {to} of {} in epoch {epoch} never came: its device failed, or somebody keeps them back",
            name(member)
        ),
        Event::Forked { epoch, member, .. } => format!(
            "WARNING: {} is in another branch of the group (epoch {epoch}): compare `conclave group verify`",
            maybe(member)
        ),
        Event::KeysUsedElsewhere { seq } => format!(
            "WARNING: entry {seq} was made with this device's keys, but not by this profile. If you have put an older copy of it back, what you said \
             since cannot be read here, and the keys are renewed now. If not: stop other copies of the profile; if there are none, somebody has \
             stolen its keys, or a member pretends it: `conclave keys rotate`"
        ),
        Event::LogRewritten { seq } => {
            format!("WARNING: the server shows another entry {seq} than it did before")
        }
        Event::Replayed { member, .. } => {
            format!("{} sent again what was said before; it is shown once", name(member))
        }
        Event::ServerSilent { since } => {
            format!("nothing was heard of the server since {} (UTC): new messages do not arrive", when(*since))
        }
        Event::InboxWentBack { .. } => {
            "the server lost part of this device's inbox, as when a backup was put back: who invited this device \
                                        of late may have to remove and add it again"
                .to_owned()
        }
        Event::ClocksDiffer { ahead_ms } => {
            let hours = ahead_ms.unsigned_abs() / 3_600_000;
            let how = if *ahead_ms > 0 { "behind" } else { "ahead of" };
            format!(
                "WARNING: this machine's clock is {hours} hours {how} the server's: set it right, or ask the server's operator"
            )
        }
        Event::GroupFailed { reason } => {
            format!(
                "this device does not get on with the group: {}; it is tried again with each sync",
                clean_line(reason)
            )
        }
        Event::IntentFailed { reason, .. } => format!("not done: {}", clean_line(reason)),
    }
}

fn event(event: &ClientEvent, title: &str) -> String {
    let title = clean_line(title);
    match &event.event {
        Event::Message { time, sender, text, .. } => {
            let text = text.as_deref().map_or_else(|| "(something that is not text)".to_owned(), clean);
            format!("{}  [{title}] {}: {text}", when(*time), sender.user().name())
        }
        other => format!("[{title}] * {}", sentence(other)),
    }
}

pub(super) async fn sync(context: &mut Context, output: &Output) -> Result<(), CliError> {
    let client = context.client()?;
    let synced = client.sync().await;
    let (events, failed) = match synced {
        Ok(events) => (events, None),
        // What was read before is not told again by another process.
        Err(error) => (client.take_untold(), Some(error)),
    };
    let titles = titles(client)?;
    let shown =
        || events.iter().map(|happened| event(happened, title(&titles, happened))).collect::<Vec<_>>().join("\n");
    match failed {
        None if events.is_empty() => output.give(&json!({ "events": events }), |_| "nothing new".to_owned()),
        None => {
            output.give(&json!({ "events": events }), |_| shown())?;
            recovery::remind_after(&events, client, output);
            Ok(())
        }
        Some(error) if events.is_empty() => Err(error.into()),
        Some(error) => {
            if !output.is_json() {
                output.give(&(), |()| shown())?;
            }
            Err(CliError::Partly { events, error })
        }
    }
}

type Titles = Vec<(conclave_names::GroupUri, String)>;

fn titles(client: &conclave_client::Client) -> Result<Titles, CliError> {
    Ok(client.groups()?.into_iter().map(|group| (group.name, group.title)).collect())
}

fn title<'a>(titles: &'a Titles, event: &ClientEvent) -> &'a str {
    titles.iter().find(|(name, _)| Some(name) == event.group.as_ref()).map_or("?", |(_, title)| title)
}

pub(super) async fn listen(group: Option<&str>, context: &mut Context, output: &Output) -> Result<(), CliError> {
    let client = context.client()?;
    let only = group.map(|text| names::group(client, text)).transpose()?;
    output.note("listening; press Ctrl-C to end");
    let mut listener = client.listen();
    loop {
        let events = tokio::select! {
            events = listener.next() => events?,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let titles = titles(listener.client())?;
        recovery::remind_after(&events, listener.client(), output);
        for happened in events {
            if only.is_none() || only == happened.group {
                output.give(&happened, |happened| event(happened, title(&titles, happened)))?;
            }
        }
    }
}

/// A new file that is its owner's alone.
pub(super) fn create_private(path: &Path) -> Result<File, CliError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let opened = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
    opened.map_err(|error| CliError::Io(path.display().to_string(), error))
}

pub(super) fn export(
    group: &str,
    file: Option<PathBuf>,
    context: &mut Context,
    output: &Output,
) -> Result<(), CliError> {
    let client = context.client()?;
    let group = names::group(client, group)?;
    let target = file.as_ref().map_or_else(|| "standard output".to_owned(), |path| path.display().to_string());
    let io = |error| CliError::Io(target.clone(), error);
    let mut writer: Box<dyn std::io::Write> = match &file {
        // What it holds is as private as the profile.
        Some(path) => Box::new(BufWriter::new(create_private(path)?)),
        None => Box::new(BufWriter::new(std::io::stdout())),
    };
    let (mut cursor, mut count) = (None, 0_usize);
    loop {
        let page = client.history_page(&group, cursor.as_ref(), PAGE)?;
        count += page.items.len();
        for item in &page.items {
            let line = serde_json::to_string(item).unwrap_or_default();
            writeln!(writer, "{line}").map_err(io)?;
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    writer.flush().map_err(io)?;
    if file.is_some() {
        output.give(&json!({ "file": target, "items": count }), |_| format!("wrote {count} items to {target}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates() {
        for (secs, text) in [
            (0, "1970-01-01 00:00"),
            (951_782_340, "2000-02-28 23:59"),
            (951_868_800, "2000-03-01 00:00"),
            (1_709_164_800, "2024-02-29 00:00"),
            (1_795_219_200, "2026-11-21 00:00"),
        ] {
            assert_eq!(when(Timestamp::from_secs(secs)), text, "{secs}");
        }
    }

    #[test]
    fn what_happened_is_told_with_its_reason() {
        let told = |event: &Event| {
            let told = describe(&serde_json::to_value(event).unwrap());
            assert_eq!(told, sentence(event), "a history tells the same");
            told
        };
        let reason = "the tree is\u{1b}[2J gone\nfor now".to_owned();
        let (seq, receipt) = (Seq(7), "00ff".to_owned());
        let waits = told(&Event::InvitationWaits { reason: reason.clone() });
        assert!(waits.contains("for a week") && waits.contains("the tree is\u{FFFD}[2J gone ⏎ for now"), "{waits}");
        let dropped = told(&Event::InvitationDropped { reason: reason.clone() });
        assert!(dropped.contains("removed and added again") && dropped.contains("the tree is"), "{dropped}");
        let withheld = told(&Event::Withheld { seq, receipt: receipt.clone() });
        assert!(
            withheld.contains("does not show") && withheld.contains('7') && withheld.contains("00ff"),
            "{withheld}"
        );
        assert!(told(&Event::ReceiptBroken { seq, receipt }).contains("00ff"));
        assert!(told(&Event::GroupFailed { reason: reason.clone() }).contains("the tree is"));
        let by = Some("mimi://example.com/d/bob/laptop".parse().unwrap());
        let not_applied = told(&Event::NotApplied { seq, commit: Seq(5), by, reason: Some(reason) });
        assert!(not_applied.starts_with("bob/laptop could not apply commit 5: the tree is"), "{not_applied}");
        let since = Timestamp::from_secs(1_795_219_200);
        assert!(told(&Event::ServerSilent { since }).contains("2026-11-21 00:00"));
        let later = serde_json::json!({ "event": "of\u{7}later", "by": "nobody" });
        assert_eq!(describe(&later), "of\u{FFFD}later", "of a later version: its name at least");
    }
}
