use conclave_names::Timestamp;
use conclave_protocol::{Code, Refusal};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::AuthenticationService;
use crate::store::{InviteRow, Tx};

/// Longest invite that is looked at, in bytes: the token, and some spaces and hyphens that people put in.
const INVITE_MAX: usize = 128;

impl AuthenticationService {
    /// Makes an invite token with which `uses` users may register until `expires`: 32 hexadecimal digits, shown to the
    /// operator this once.
    ///
    /// # Errors
    /// `MALFORMED` for no use or a time that is past; `UNAVAILABLE` if the operating system gives no randomness.
    pub fn create_invite(
        &self,
        tx: &mut dyn Tx,
        uses: u32,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<Zeroizing<String>, Refusal> {
        if uses == 0 || expires <= now {
            let message = "an invite needs at least one use and an end in the future";
            return Err(Refusal::new(Code::Malformed, message));
        }
        let (token, row) = Self::new_invite(uses, expires)?;
        tx.put_invite(&row)?;
        Ok(token)
    }

    /// Makes an invite token and the row that admits it, without a store: for an operator's program that hands the row
    /// to a running server ([`AuthenticationService::import_invite`]).
    ///
    /// # Errors
    /// `UNAVAILABLE` if the operating system gives no randomness.
    pub fn new_invite(uses: u32, expires: Timestamp) -> Result<(Zeroizing<String>, InviteRow), Refusal> {
        let mut random = Zeroizing::new([0; 16]);
        getrandom::fill(random.as_mut())
            .map_err(|_| Refusal::new(Code::Unavailable, "the operating system gave no random bytes: try again"))?;
        let token = Zeroizing::new(format!("{:032x}", u128::from_be_bytes(*random)));
        let row = InviteRow { token_hash: hash(&token), uses_left: uses, expires };
        Ok((token, row))
    }

    /// Takes over an invite that an operator's program made. One that is known is left as it is, so that a row handed
    /// over twice gives no second uses.
    pub fn import_invite(&self, tx: &mut dyn Tx, row: &InviteRow, now: Timestamp) -> Result<(), Refusal> {
        if row.expires > now && tx.invite(&row.token_hash)?.is_none() {
            tx.put_invite(row)?;
        }
        Ok(())
    }

    /// Uses an invite once, in the transaction of what it allows.
    pub(super) fn redeem(tx: &mut dyn Tx, invite: &str, now: Timestamp) -> Result<(), Refusal> {
        if invite.is_empty() {
            let message = "registration here needs an invite: ask the server's operator for a token";
            return Err(Refusal::new(Code::InviteRequired, message));
        }
        let found = if invite.len() <= INVITE_MAX { tx.invite(&hash(invite))? } else { None };
        match found {
            Some(row) if row.expires > now && row.uses_left > 0 => {
                tx.put_invite(&InviteRow { uses_left: row.uses_left - 1, ..row })?;
                Ok(())
            }
            _ => Err(Refusal::new(
                Code::InviteInvalid,
                "the invite is unknown, used up or expired: ask the server's operator for another",
            )),
        }
    }
}

/// SHA-256 of a token as it was made: without the spaces and hyphens, and in the small letters, of who typed it.
fn hash(token: &str) -> [u8; 32] {
    let plain = token.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'-');
    let plain: Zeroizing<Vec<u8>> = Zeroizing::new(plain.map(|byte| byte.to_ascii_lowercase()).collect());
    Sha256::digest(plain.as_slice()).into()
}
