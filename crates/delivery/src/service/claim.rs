use conclave_mls::capabilities::Capabilities;
use conclave_names::{ClientUri, Timestamp, UserUri, limits};
use conclave_protocol::{
    Code, Refusal, method,
    v1::{self, ClaimRequest, ClaimResponse, ClaimedKeyPackage, SignedRequest, Unserved, UnservedReason},
};

use super::{
    DeliveryService, Done, Incoming,
    idempotency::{CLAIM_MS, Submission},
    request::{Signed, idempotency_key, malformed, too_large},
};
use crate::{
    keyed::{Keyed, Purpose},
    store::{KeyPackageRow, Read, Tx},
};

/// Cipher suites in one claim.
const SUITES: usize = 16;

/// What a KeyPackage must be, to be served.
struct Wanted {
    /// Cipher suites, best first.
    suites: Vec<u16>,
    /// What its leaf must be capable of.
    required: Capabilities,
}

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
        let required = required(message.required.unwrap_or_default())?;
        let wanted = Wanted { suites: suites(&message.cipher_suites)?, required };
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
            if let Some(row) = take(tx, &keyed, &target, &wanted, wait.is_none(), now)? {
                if !row.last_resort {
                    self.limiter.took(&caller, &target, now);
                }
                reply.key_packages.push(ClaimedKeyPackage {
                    client: target.to_string(),
                    last_resort: row.last_resort,
                    key_package: row.bytes,
                });
            } else {
                let why = unserved(tx, &target, &wanted, now)?;
                if why.reason() == UnservedReason::Limited {
                    withheld = withheld.max(wait);
                }
                reply.without.push(target.to_string());
                reply.unserved.push(why);
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

fn required(message: v1::Capabilities) -> Result<Capabilities, Refusal> {
    let list = |numbers: &[u32]| -> Result<Vec<u16>, Refusal> {
        if numbers.len() > limits::REQUIRED_CAPABILITIES {
            return Err(too_large("a list in `required`", limits::REQUIRED_CAPABILITIES));
        }
        let number = |number: &u32| u16::try_from(*number).map_err(|_| malformed("a capability is a 16-bit number"));
        numbers.iter().map(number).collect()
    };
    Ok(Capabilities::new(
        list(&message.protocol_versions)?,
        list(&message.extension_types)?,
        list(&message.proposal_types)?,
        list(&message.credential_types)?,
    ))
}

/// Takes one KeyPackage of a client that does, of the first suite in which it has one; a one-time one only if the pool
/// may be touched.
fn take(
    tx: &mut dyn Tx,
    keyed: &Keyed,
    client: &ClientUri,
    wanted: &Wanted,
    pool: bool,
    now: Timestamp,
) -> Result<Option<KeyPackageRow>, Refusal> {
    let serves = |row: &KeyPackageRow| row.expires > now && row.capabilities.meets(&wanted.required);
    for suite in &wanted.suites {
        let next = if pool { tx.next_key_package(client, *suite, &wanted.required, now)? } else { None };
        if let Some(row) = next {
            tx.delete_key_package(&row.reference)?;
            tx.put_claimed(&keyed.hash(Purpose::Claimed, &[row.reference.as_bytes()]), row.expires)?;
            return Ok(Some(row));
        }
        if let Some(row) = tx.last_resort(client, *suite)?.filter(serves) {
            if !row.used {
                tx.put_key_package(&KeyPackageRow { used: true, ..row.clone() })?;
            }
            return Ok(Some(row));
        }
    }
    Ok(None)
}

/// Why a client was not served.
fn unserved(read: &mut dyn Read, client: &ClientUri, wanted: &Wanted, now: Timestamp) -> Result<Unserved, Refusal> {
    let mut answer = Unserved { client: client.to_string(), ..Unserved::default() };
    let mut lacking: Option<Capabilities> = None;
    for suite in &wanted.suites {
        for found in read.key_package_capabilities(client, *suite, now)? {
            let missing = found.missing(&wanted.required);
            if lacking.as_ref().is_none_or(|least| missing.len() < least.len()) {
                lacking = Some(missing);
            }
        }
    }
    if lacking.as_ref().is_some_and(Capabilities::is_empty) {
        answer.set_reason(UnservedReason::Limited);
        return Ok(answer);
    }
    if let Some(missing) = lacking {
        let list = |numbers: &std::collections::BTreeSet<u16>| numbers.iter().copied().map(u32::from).collect();
        answer.set_reason(UnservedReason::Capabilities);
        answer.missing = Some(v1::Capabilities {
            protocol_versions: list(&missing.protocol_versions),
            extension_types: list(&missing.extension_types),
            proposal_types: list(&missing.proposal_types),
            credential_types: list(&missing.credential_types),
        });
        return Ok(answer);
    }
    let others = read.key_package_counts(client, now)?;
    answer.cipher_suites = others.into_iter().map(|count| count.cipher_suite.into()).collect();
    let empty = answer.cipher_suites.is_empty();
    answer.set_reason(if empty { UnservedReason::Empty } else { UnservedReason::CipherSuite });
    Ok(answer)
}
