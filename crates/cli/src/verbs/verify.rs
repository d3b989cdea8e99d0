//! `verify`.

use qrcode::{QrCode, render::unicode::Dense1x2};
use serde::Serialize;

use crate::{args::Verify, error::CliError, names, output::Output, profile::Context};

#[derive(Serialize)]
struct Verified {
    user: String,
    safety_number: String,
    qr: String,
    compared: bool,
    changed: bool,
}

pub(super) async fn run(args: Verify, context: &mut Context, output: &Output) -> Result<(), CliError> {
    let client = context.client()?;
    let user = names::user(&args.user, client.user().domain())?;
    if user == *client.user() {
        return Err(CliError::Usage("that is you: compare with somebody else".into()));
    }
    let key = client.user_record(&user).await?.identity_key;
    let number = client.safety_number(&user, &key);
    let known = client.pinned(&user)?;
    let changed = known.as_ref().is_some_and(|known| *known.identity_key.as_bytes() != key);
    if changed && (args.verified || args.scan.is_some()) && !args.accept {
        return Err(CliError::Client(conclave_client::ClientError::IdentityChanged(user)));
    }
    let mut verified = known.is_some_and(|known| known.verified) && !changed;
    if let Some(scanned) = &args.scan {
        number.matches_qr(scanned).map_err(|error| CliError::Refused(error.to_string()))?;
        verified = true;
    }
    verified |= args.verified;
    if !changed || args.accept {
        client.accept_identity(&user, &key, verified)?;
    }
    let answer = Verified {
        user: user.to_string(),
        safety_number: number.to_string(),
        qr: number.qr_payload(),
        compared: verified,
        changed: changed && !args.accept,
    };
    let terminal = output.is_terminal();
    output.give(&answer, |answer| {
        let shown = names::show(&user);
        let mut text = format!("Safety number with {shown}:\n\n");
        let groups: Vec<_> = number.groups().collect();
        for row in groups.chunks(4) {
            text.push_str(&format!("    {}\n", row.join(" ")));
        }
        if terminal {
            if let Ok(code) = QrCode::new(answer.qr.as_bytes()) {
                text.push_str(&format!("\n{}\n", code.render::<Dense1x2>().build()));
            }
        } else {
            text.push_str(&format!("\n    {}\n", answer.qr));
        }
        text.push('\n');
        text.push_str(&if answer.changed {
            format!(
                "WARNING: the identity key of {shown} is another than before. Compare the number with that person; then\n\
                 accept it with --accept."
            )
        } else if answer.compared {
            format!("You have compared it with {shown}.")
        } else {
            format!("Compare it with what {shown} sees, over another channel. If it is the same, note it with --verified.")
        });
        text
    })
}
