//! From a bundle's Welcome to posts into inboxes.

use conclave_channel::{Body, Entry, EntryKind, size_class};
use conclave_mls::{
    address::{DropToken, SealedAddress},
    welcome::InboxWelcome,
};
use conclave_names::{ChannelId, Epoch, Timestamp, limits};
use conclave_protocol::{
    Code, Refusal,
    v1::{WelcomeBundle, WelcomePart},
};

use super::{
    DeliveryService,
    authenticated::Opened,
    request::{malformed, too_large},
};
use crate::{
    keyed::{Keyed, Purpose},
    store::{ChannelKind, KeyedHash, Read, Tx},
};

/// Bytes of all Welcomes of a bundle together, as they go into inboxes.
const WELCOME_BYTES: usize = 64 * 1024 * 1024;

/// The answer to a delivery address that is not good. It must not tell whether the inbox exists.
fn bad_address(index: usize, why: &str) -> Refusal {
    Refusal::new(
        Code::AddressInvalid,
        format!("the delivery address of Welcome part {index} {why}: claim another KeyPackage of that client"),
    )
    .with("index", index)
}

impl DeliveryService {
    /// Checks all parts of a Welcome and uses up their drop tokens. Gives the payloads for the outbox.
    pub(super) fn welcomes(
        &self,
        tx: &mut dyn Tx,
        keyed: &Keyed,
        bundle: &WelcomeBundle,
        opened: Option<&Opened>,
        now: Timestamp,
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        let WelcomeBundle { cipher_suite, encrypted_group_info, parts, attachment } = bundle;
        if parts.len() > limits::WELCOMES_PER_BUNDLE {
            return Err(too_large("the number of Welcome parts", limits::WELCOMES_PER_BUNDLE));
        }
        let cipher_suite =
            u16::try_from(*cipher_suite).map_err(|_| malformed("`cipher_suite` is not a 16-bit number"))?;
        let mut posts = Vec::with_capacity(parts.len());
        let mut bytes = 0_usize;
        for (index, part) in parts.iter().enumerate() {
            let entry = entry(&InboxWelcome {
                cipher_suite,
                secrets: part.secrets.clone(),
                encrypted_group_info: encrypted_group_info.clone(),
                attachment: attachment.clone(),
            })?;
            let inbox = self.admit_post(tx, keyed, index, part, opened, now)?;
            let post = [inbox.as_bytes(), entry.as_slice()].concat();
            bytes = bytes.saturating_add(post.len());
            if bytes > WELCOME_BYTES {
                return Err(too_large("the size of all Welcomes of the bundle", WELCOME_BYTES));
            }
            posts.push(post);
        }
        Ok(posts)
    }

    /// Opens a part's address, and uses its token once.
    fn admit_post(
        &self,
        tx: &mut dyn Tx,
        keyed: &Keyed,
        index: usize,
        part: &WelcomePart,
        opened: Option<&Opened>,
        now: Timestamp,
    ) -> Result<ChannelId, Refusal> {
        let inbox = self.use_address(tx, keyed, (&part.domain, &part.address), opened, now)?;
        inbox.map_err(|why| bad_address(index, why))
    }

    /// Opens a delivery address, and uses its token once. Gives the inbox, or why there is none.
    pub(super) fn use_address(
        &self,
        tx: &mut dyn Tx,
        keyed: &Keyed,
        address: (&str, &[u8]),
        opened: Option<&Opened>,
        now: Timestamp,
    ) -> Result<Result<ChannelId, &'static str>, Refusal> {
        let good = self.good_address(tx, keyed, address, opened, now)?;
        let (token, nonce, used) = match good {
            Ok(good) => good,
            Err(why) => return Ok(Err(why)),
        };
        tx.put_drop_uses(&nonce, used.saturating_add(1), token.expires())?;
        Ok(Ok(*token.inbox()))
    }

    /// Opens a delivery address. Gives its token, the name under which its uses are counted, and how many there were; or why
    /// there is none to use.
    pub(super) fn good_address(
        &self,
        read: &mut dyn Read,
        keyed: &Keyed,
        (domain, address): (&str, &[u8]),
        opened: Option<&Opened>,
        now: Timestamp,
    ) -> Result<Result<(DropToken, KeyedHash, u32), &'static str>, Refusal> {
        if domain != self.domain.as_str() {
            return Ok(Err("is at another provider, to which this server does not deliver"));
        }
        let Some(token) = self.open_address(read, address, opened, now)? else { return Ok(Err("does not open")) };
        if token.expires() <= now {
            return Ok(Err("has expired"));
        }
        let nonce = keyed.hash(Purpose::Drop, &[token.inbox().as_bytes(), token.nonce()]);
        let used = read.drop_uses(&nonce)?;
        Ok(if used >= token.uses() { Err("was used up") } else { Ok((token, nonce, used)) })
    }

    /// The token in an address, if it was sealed to a key of ours and minted by the owner of an inbox here.
    fn open_address(
        &self,
        read: &mut dyn Read,
        bytes: &[u8],
        opened: Option<&Opened>,
        now: Timestamp,
    ) -> Result<Option<DropToken>, Refusal> {
        let Ok(address) = SealedAddress::parse(bytes) else { return Ok(None) };
        let Some(key) = read.address_key(address.key_id())?.filter(|key| key.expires > now) else { return Ok(None) };
        let token = if let Some(token) = opened.and_then(|opened| opened.get(bytes)) {
            token.clone()
        } else {
            let (secret, public) = (key.secret.clone().into(), key.public.clone().into());
            let Ok(token) = address.open(&self.suite, &secret, &public) else { return Ok(None) };
            token
        };
        let kind = read.channel(token.inbox())?.map(|row| row.kind);
        let Some(ChannelKind::Inbox { drop_key, .. }) = kind else { return Ok(None) };
        Ok(token.verify(&drop_key).is_ok().then_some(token))
    }
}

/// The entry that goes into an inbox.
fn entry(welcome: &InboxWelcome) -> Result<Vec<u8>, Refusal> {
    let body = size_class::pad(welcome.to_bytes().map_err(|_| over())?, 0);
    Entry::new(EntryKind::Welcome, Epoch(0), Body::Inline(body)).to_bytes().map_err(|_| over())
}

fn over() -> Refusal {
    too_large("a Welcome (its GroupInfo, a joiner's secrets, the attachment and padding)", limits::INLINE_BODY)
}
