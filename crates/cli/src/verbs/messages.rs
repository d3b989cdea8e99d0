//! `send`, `read`, `listen`, `sync`, `export`.

use std::{
    fs::{File, OpenOptions},
    io::{BufWriter, Read as _, Write as _},
    path::{Path, PathBuf},
};

use conclave_client::{ClientEvent, Event, HistoryEntry, HistoryItem};
use conclave_names::{Seq, Timestamp};
use serde_json::json;

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
        client.sync().await?;
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
        HistoryEntry::Change { change } => format!("* {}", describe(change)),
        _ => "(something that this version cannot show)".to_owned(),
    };
    format!("{}  {what}", when(item.time))
}

/// A change of the group in words, from its JSON.
fn describe(change: &serde_json::Value) -> String {
    let name = |value: &serde_json::Value| {
        let text = value.as_str().unwrap_or("somebody");
        clean_line(text.rsplit("/d/").next().unwrap_or(text))
    };
    let by = name(&change["by"]);
    let members = || {
        let all = change["members"].as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    match change["event"].as_str().unwrap_or_default() {
        "added" => format!("{by} added {}", members()),
        "removed" => format!("{by} removed {}", members()),
        "updated" => format!("{by} renewed keys"),
        "frozen" => format!("{by} makes the group anew; what is said waits until it goes on"),
        "succeeded" => "the group goes on with new keys".to_owned(),
        "successor_waits" => {
            format!("the group cannot go on yet: {}", clean_line(change["reason"].as_str().unwrap_or_default()))
        }
        "leave_requested" => format!("{} asks to leave", name(&change["member"])),
        "external_proposal" => {
            let what = match (change.pointer("/proposal/add"), change.pointer("/proposal/remove")) {
                (Some(added), _) => format!("to add {}", name(added)),
                (_, Some(removed)) => format!("to remove {}", name(removed)),
                _ => "a change".to_owned(),
            };
            format!("{}, who is no member, proposes {what}", name(&change["sender"]))
        }
        "joined" => format!("you joined, added by {by}"),
        "removed_from_group" => format!("you were removed by {by}"),
        "refused" => format!("an entry was refused: {}", clean_line(change["reason"].as_str().unwrap_or_default())),
        "stuck" => format!(
            "the group cannot be followed: {}; this device tries to come back by itself",
            clean_line(change["reason"].as_str().unwrap_or_default())
        ),
        "logs_differ" => format!(
            "WARNING: {} saw another log than you did: the server shows two, or this member lies",
            name(&change["member"])
        ),
        "identity_changed" => format!(
            "WARNING: the identity key of {} has changed: compare safety numbers (`conclave verify`)",
            name(&change["user"])
        ),
        "intent_failed" => format!("not done: {}", clean_line(change["reason"].as_str().unwrap_or_default())),
        "rejoined" => format!("{} is back", name(&change["member"])),
        "readmitted" => format!("{by} let {} in again", members()),
        "knocked" => format!("you asked {} to let you in again", members()),
        "missed" => format!("what was said from entry {} to {} cannot be read here", change["from"], change["to"]),
        "rejoin_blocked" => {
            let reason = clean_line(change["reason"].as_str().unwrap_or_default());
            if change["doubtful"] == true {
                format!("the group cannot be followed, and {reason}; `conclave group rejoin` comes back all the same")
            } else {
                format!("the group cannot be followed: {reason}")
            }
        }
        "position_gone" => clean_line(change["reason"].as_str().unwrap_or_default()),
        "disputed" => format!(
            "a member cannot apply commit {}: unless another confirms it within 15 minutes, it is taken back",
            change["commit"]
        ),
        "not_applied" => format!("{by} could not apply commit {}", change["commit"]),
        "acknowledged" => format!("{by} confirms commit {}: it stands", change["commit"]),
        "annulled" => format!("commit {} and what followed it were taken back", change["commit"]),
        "invitation_annulled" => "the change that added you was taken back: you are no member".to_owned(),
        "unseen" => {
            "nobody has shown to have seen what you said: they are all away, or the server withholds it".to_owned()
        }
        "messages_missing" => format!(
            "messages {} to {} of {} in epoch {} never came: its device failed, or somebody keeps them back",
            change["from"],
            change["to"],
            name(&change["member"]),
            change["epoch"]
        ),
        "forked" => format!(
            "WARNING: {} is in another branch of the group (epoch {}): compare `conclave group verify`",
            name(&change["member"]),
            change["epoch"]
        ),
        "log_rewritten" => format!("WARNING: the server shows another entry {} than it did before", change["seq"]),
        "replayed" => format!("{} sent again what was said before; it is shown once", name(&change["member"])),
        "server_silent" => "nothing was heard of the server for 5 minutes: new messages do not arrive".to_owned(),
        "receipt_invalid" => "WARNING: the server does not sign for what it takes, or with another key".to_owned(),
        "receipt_broken" => "WARNING: the server shows another log than it signed for".to_owned(),
        "equivocation" => format!(
            "WARNING: the server signed for two logs; the proof: {}",
            clean_line(change["proof"].as_str().unwrap_or_default())
        ),
        other => clean_line(other),
    }
}

fn event(event: &ClientEvent, title: &str) -> String {
    let title = clean_line(title);
    match &event.event {
        Event::Message { time, sender, text, .. } => {
            let text = text.as_deref().map_or_else(|| "(something that is not text)".to_owned(), clean);
            format!("{}  [{title}] {}: {text}", when(*time), sender.user().name())
        }
        other => {
            let value = serde_json::to_value(other).unwrap_or_default();
            format!("[{title}] * {}", describe(&value))
        }
    }
}

pub(super) async fn sync(context: &mut Context, output: &Output) -> Result<(), CliError> {
    let client = context.client()?;
    let events = client.sync().await?;
    let titles = titles(client)?;
    output.give(&json!({ "events": events }), |_| {
        if events.is_empty() {
            return "nothing new".to_owned();
        }
        events.iter().map(|happened| event(happened, title(&titles, happened))).collect::<Vec<_>>().join("\n")
    })
}

type Titles = Vec<(conclave_names::GroupUri, String)>;

fn titles(client: &conclave_client::Client) -> Result<Titles, CliError> {
    Ok(client.groups()?.into_iter().map(|group| (group.name, group.title)).collect())
}

fn title<'a>(titles: &'a Titles, event: &ClientEvent) -> &'a str {
    titles.iter().find(|(name, _)| *name == event.group).map_or("?", |(_, title)| title)
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
        for happened in events {
            if only.as_ref().is_none_or(|only| *only == happened.group) {
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
    let (mut after, mut count) = (Seq(0), 0_usize);
    loop {
        let page = client.history(&group, after, PAGE)?;
        let Some(last) = page.last() else { break };
        after = last.seq;
        count += page.len();
        for item in &page {
            let line = serde_json::to_string(item).unwrap_or_default();
            writeln!(writer, "{line}").map_err(io)?;
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
}
