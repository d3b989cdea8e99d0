use conclave_names::{ClientUri, Timestamp, UserUri};
use conclave_protocol::{
    Code, Refusal, method,
    v1::{ClaimRequest, ClaimResponse, ClaimedKeyPackage, SignedRequest},
};

use super::{
    DeliveryService, Done, Incoming,
    idempotency::{CLAIM_MS, Submission},
    request::{Signed, idempotency_key, malformed, too_large},
};
use crate::{
    keyed::{Keyed, Purpose},
    store::{KeyPackageRow, Tx},
};

/// Cipher suites in one claim.
const SUITES: usize = 16;

/// Whose KeyPackages are claimed.
enum Target {
    User(UserUri),
    Client(ClientUri),
}

impl DeliveryService {
    /// Takes one KeyPackage of each client of the target. A one-time KeyPackage is deleted with that; only a keyed hash
    /// of its reference stays until it would have expired.
    pub fn claim(
        &self,
        tx: &mut dyn Tx,
        request: &impl Incoming<SignedRequest>,
        now: Timestamp,
    ) -> Result<Done<ClaimResponse>, Refusal> {
        let (caller, Signed { message, keyed, .. }) =
            self.certified::<ClaimRequest>(tx, request, method::CLAIM, now)?;
        let key = idempotency_key(&message.idempotency_key)?;
        let suites = suites(&message.cipher_suites)?;
        let target = self.target(&message.target)?;
        let scope = keyed.hash(Purpose::Claimer, &[caller.client.to_string().as_bytes(), &caller.identity_key]);
        let claim = Submission::new(scope, key, method::CLAIM, &request.request().body);
        if let Some(reply) = claim.earlier(tx, now)? {
            return Ok(Done::quiet(reply));
        }
        let clients = match target {
            Target::Client(client) => vec![client],
            Target::User(user) => tx.directory_clients(&user, now)?,
        };
        if clients.is_empty() {
            return Err(Refusal::new(
                Code::UserUnknown,
                "no client of this user keeps KeyPackages here: check the name, or wait until one was online",
            ));
        }
        let mut reply = ClaimResponse::default();
        let mut withheld = None;
        for target in clients {
            // Beyond the limit the pool is left alone, and the last resort keeps the client reachable.
            let wait = self.limiter.pool(&caller, &target, now);
            if let Some(row) = take(tx, &keyed, &target, &suites, wait.is_none(), now)? {
                if !row.last_resort {
                    self.limiter.took(&caller, &target, now);
                }
                reply.key_packages.push(ClaimedKeyPackage {
                    client: target.to_string(),
                    last_resort: row.last_resort,
                    key_package: row.bytes,
                });
            } else {
                withheld = withheld.max(wait);
                reply.without.push(target.to_string());
            }
        }
        if let (Some(wait), true) = (withheld, reply.key_packages.is_empty()) {
            return Err(self.limiter.pool_refusal(wait));
        }
        claim.remember(tx, &reply, now, CLAIM_MS)?;
        Ok(Done::quiet(reply))
    }

    fn target(&self, text: &str) -> Result<Target, Refusal> {
        let target = match text.parse() {
            Ok(user) => Ok(Target::User(user)),
            Err(error) => text.parse().map(Target::Client).map_err(|_| error),
        }
        .map_err(|error| Refusal::new(Code::NameInvalid, error.to_string()))?;
        let domain = match &target {
            Target::User(user) => user.domain(),
            Target::Client(client) => client.domain(),
        };
        if *domain == self.domain {
            return Ok(target);
        }
        Err(Refusal::new(Code::NameInvalid, format!("`{domain}` is not this server's domain: ask that provider")))
    }
}

fn suites(numbers: &[u32]) -> Result<Vec<u16>, Refusal> {
    match numbers.len() {
        0 => return Err(malformed("`cipher_suites` is empty: name those that the group may use")),
        len if len > SUITES => return Err(too_large("the number of cipher suites", SUITES)),
        _ => {}
    }
    let number = |number: &u32| u16::try_from(*number).map_err(|_| malformed("a cipher suite is a 16-bit number"));
    numbers.iter().map(number).collect()
}

/// Takes one KeyPackage of a client, of the first suite in which it has one; a one-time one only if the pool may be
/// touched.
fn take(
    tx: &mut dyn Tx,
    keyed: &Keyed,
    client: &ClientUri,
    suites: &[u16],
    pool: bool,
    now: Timestamp,
) -> Result<Option<KeyPackageRow>, Refusal> {
    for suite in suites {
        let next = if pool { tx.next_key_package(client, *suite, now)? } else { None };
        if let Some(row) = next {
            tx.delete_key_package(&row.reference)?;
            tx.put_claimed(&keyed.hash(Purpose::Claimed, &[row.reference.as_bytes()]), row.expires)?;
            return Ok(Some(row));
        }
        if let Some(row) = tx.last_resort(client, *suite)?.filter(|row| row.expires > now) {
            if !row.used {
                tx.put_key_package(&KeyPackageRow { used: true, ..row.clone() })?;
            }
            return Ok(Some(row));
        }
    }
    Ok(None)
}
