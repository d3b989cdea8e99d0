use conclave_names::Timestamp;
use conclave_protocol::v1::GetIssuersResponse;

use super::{AuthenticationService, Registration};

impl AuthenticationService {
    /// `GetIssuers`: what anybody may know of this service. It needs no store.
    #[must_use]
    pub fn get_issuers(&self, now: Timestamp) -> GetIssuersResponse {
        GetIssuersResponse {
            domain: self.domain().to_string(),
            issuers: self.issuers.iter().map(|issuer| issuer.der().to_vec()).collect(),
            invite_required: self.registration == Registration::Invite,
            credential_lifetime_secs: self.credential_lifetime_secs,
            time_ms: now.0,
        }
    }
}
