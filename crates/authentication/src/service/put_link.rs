use conclave_names::Timestamp;
use conclave_protocol::{
    Code, Refusal, method,
    v1::{PutLinkRequest, PutLinkResponse, SignedRequest},
};

use super::{AuthenticationService, LINK_LIFETIME_MS, LINKS_PER_USER, fixed, link_unknown, own_key, user_unknown};
use crate::store::{LinkRow, Tx};

impl AuthenticationService {
    /// `PutLink`: leaves what a new device asks, for 10 minutes. Repeating it changes nothing.
    ///
    /// Anybody can ask, in any user's name. So where there are too many links of a user, the oldest that nobody approved
    /// gives way: strangers who leave many do not keep the user's new device out, but must keep leaving more of them,
    /// and at what rate they can is for whoever knows their network addresses to limit.
    pub fn put_link(
        &self,
        tx: &mut dyn Tx,
        request: &SignedRequest,
        now: Timestamp,
    ) -> Result<PutLinkResponse, Refusal> {
        let verified = self.admit(tx, request, method::PUT_LINK, now)?;
        let body: PutLinkRequest = verified.decode()?;
        let row = LinkRow {
            link_id: fixed(&body.link_id, "link_id")?,
            client: self.own_client(&body.client)?,
            signature_key: own_key(&verified, &body.signature_key, "signature_key")?,
            mac: fixed(&body.mac, "mac")?,
            approval: None,
            expires: now.plus_ms(LINK_LIFETIME_MS),
        };
        let user = row.client.user();
        tx.user(user)?.ok_or_else(|| user_unknown(user))?;
        if let Some(old) = tx.link(&row.link_id)?.filter(|old| old.expires > now) {
            let same = (&old.client, old.signature_key, old.mac) == (&row.client, row.signature_key, row.mac);
            return if same { Ok(PutLinkResponse { expires_ms: old.expires.0 }) } else { Err(link_unknown()) };
        }
        if tx.count_links(user, now)? >= LINKS_PER_USER && !tx.drop_oldest_link(user, now)? {
            let message = format!("{LINKS_PER_USER} links of this user were approved: wait until one has expired");
            return Err(Refusal::new(Code::QuotaExceeded, message).with("limit", LINKS_PER_USER));
        }
        tx.put_link(&row)?;
        Ok(PutLinkResponse { expires_ms: row.expires.0 })
    }
}
