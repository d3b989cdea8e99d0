use conclave_names::Timestamp;
use conclave_protocol::{Code, Refusal, v1::GetServerInfoResponse};

use super::DeliveryService;
use crate::store::Read;

impl DeliveryService {
    /// What a client must know of this server.
    ///
    /// # Errors
    /// [`Code::Unavailable`] before the first [`maintain`](Self::maintain), which makes the address key.
    pub fn get_server_info(&self, read: &mut dyn Read, now: Timestamp) -> Result<GetServerInfoResponse, Refusal> {
        let key = read
            .newest_address_key()?
            .ok_or_else(|| Refusal::new(Code::Unavailable, "the server is starting: try again in a moment"))?;
        Ok(GetServerInfoResponse {
            domain: self.domain.to_string(),
            time_ms: now.0,
            address_key: key.public.clone(),
            address_key_id: key.id.to_vec(),
            address_key_rotates_ms: key.rotates.0,
            receipt_key: self.receipt_key(),
            software: concat!("conclaved ", env!("CARGO_PKG_VERSION")).to_owned(),
        })
    }
}
