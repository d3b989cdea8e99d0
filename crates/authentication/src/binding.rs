//! Identity bindings as they cross the wire.

use conclave_mls::credential::{BindingError, IdentityBinding};
use conclave_protocol::{Code, Refusal, v1};

/// The wire's form of a binding.
#[must_use]
pub fn binding_to_proto(binding: &IdentityBinding) -> v1::IdentityBinding {
    v1::IdentityBinding {
        purpose: u32::from(binding.purpose.as_u8()),
        not_after: binding.not_after_secs,
        identity_key: binding.identity_key.to_vec(),
        signature: binding.signature.to_vec(),
    }
}

/// Reads the wire's form of a binding. The signature is not verified here.
///
/// # Errors
/// `MALFORMED` for fields of a wrong length, `BINDING_INVALID` for an unknown purpose.
pub fn binding_from_proto(binding: &v1::IdentityBinding) -> Result<IdentityBinding, Refusal> {
    let length = |what: &str| Refusal::new(Code::Malformed, format!("the binding's {what} has a wrong length"));
    let purpose = u8::try_from(binding.purpose).unwrap_or(u8::MAX);
    Ok(IdentityBinding {
        purpose: purpose.try_into().map_err(|error| invalid(&error))?,
        not_after_secs: binding.not_after,
        identity_key: binding.identity_key.as_slice().try_into().map_err(|_| length("`identity_key`"))?,
        signature: binding.signature.as_slice().try_into().map_err(|_| length("`signature`"))?,
    })
}

/// The refusal for a binding that is not believed.
pub(crate) fn invalid(error: &BindingError) -> Refusal {
    Refusal::new(Code::BindingInvalid, error.to_string())
}
