//! `settings`, and `group fill`.

use conclave_client::{Client, FillError, GapAsked};
use conclave_names::{ClientUri, GroupUri};
use serde_json::json;

use crate::{args::GapFill, error::CliError, names, output::Output, profile::Context};

impl From<GapFill> for conclave_client::GapFill {
    fn from(choice: GapFill) -> Self {
        match choice {
            GapFill::Never => Self::Never,
            GapFill::Ask => Self::Ask,
            GapFill::Always => Self::Always,
        }
    }
}

pub(super) fn run(gap_fill: Option<GapFill>, context: &mut Context, output: &Output) -> Result<(), CliError> {
    let client = context.client()?;
    if let Some(choice) = gap_fill {
        client.set_gap_fill(choice.into())?;
    }
    let (word, meaning) = match client.gap_fill()? {
        conclave_client::GapFill::Never => {
            ("never", "this device tells nobody what he missed, and says nothing of who asks")
        }
        conclave_client::GapFill::Ask => {
            ("ask", "this device says who asks for what he missed, and `conclave group fill` tells it")
        }
        conclave_client::GapFill::Always => ("always", "this device tells members that are back what they missed"),
    };
    output.give(&json!({ "gap_fill": word }), |_| format!("gap-fill  {word}: {meaning}"))
}

/// A device; or a user, of whom one client asks.
fn asker(text: &str, asked: &[GapAsked], client: &Client) -> Result<ClientUri, CliError> {
    let own = client.user().domain();
    if let Some(client) = names::device(text, own)? {
        return Ok(client);
    }
    let user = names::user(text, own)?;
    let mut of_user = asked.iter().filter(|asked| *asked.member.user() == user);
    match (of_user.next(), of_user.next()) {
        (Some(one), None) => Ok(one.member.clone()),
        (None, _) => Err(CliError::NobodyAsked(names::show(&user))),
        _ => Err(CliError::Usage(format!("more than one device of {text} asks: say which, e.g. `{text}/laptop`"))),
    }
}

pub(super) async fn fill(
    group: &GroupUri,
    whom: Option<&str>,
    client: &mut Client,
    output: &Output,
) -> Result<(), CliError> {
    let asked = client.gap_requests(group)?;
    let Some(whom) = whom else {
        let shown: Vec<_> = asked
            .iter()
            .map(|asked| json!({ "client": asked.member, "first": asked.first, "last": asked.last }))
            .collect();
        return output.give(&json!({ "group": group, "asked": shown }), |_| {
            let line = |asked: &GapAsked| {
                format!("{} asks for what was said from entry {} to {}", asked.member, asked.first, asked.last)
            };
            if asked.is_empty() {
                "nobody asks".to_owned()
            } else {
                asked.iter().map(line).collect::<Vec<_>>().join("\n")
            }
        });
    };
    let whom = asker(whom, &asked, client)?;
    let given = client.fill_gap(group, &whom).await?;
    let answer = json!({ "group": group, "client": whom, "messages": given.messages, "left_out": given.left_out });
    output.give(&answer, |_| {
        let more = match given.left_out {
            0 => String::new(),
            older => format!("; {older} older ones did not fit"),
        };
        format!("told {whom} {} messages that it had missed{more}", given.messages)
    })
}

/// A word for programs.
pub(crate) fn code_of<E>(error: &FillError<E>) -> &'static str {
    match error {
        FillError::NobodyAsked(_) => "NOBODY_ASKED",
        FillError::NotEntitled(_) => "NOT_ENTITLED",
        FillError::Answered(_) => "ANSWERED_ALREADY",
        FillError::Nothing(_) => "NOTHING_TO_GIVE",
        FillError::NoMember(_) | FillError::NotActive => "NOT_A_MEMBER",
        _ => "CLIENT",
    }
}
