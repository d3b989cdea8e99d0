//! Calls signed by a key.

use std::{fmt, future::Future};

use conclave_names::Timestamp;
use conclave_protocol::{Code, SigningKey, signed, v1::SignedRequest};
use prost::Message;
use tonic::{Response, Status};

use super::{CallError, Transport, retry::retry};

/// Who signs a call.
#[derive(Clone)]
pub struct Signer<'a> {
    /// The key that the call asks for.
    pub key: &'a SigningKey,
    /// Its DER certificate where the call asks for a certified client, else empty.
    pub certificate: Vec<u8>,
}

impl fmt::Debug for Signer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(..)")
    }
}

impl<'a> Signer<'a> {
    /// A key by itself.
    pub fn bare(key: &'a SigningKey) -> Self {
        Self { key, certificate: Vec::new() }
    }

    /// A certified key.
    pub fn certified(key: &'a SigningKey, certificate: Vec<u8>) -> Self {
        Self { key, certificate }
    }
}

impl Transport {
    fn sign(&self, method: &str, signer: &Signer<'_>, body: &[u8]) -> Result<SignedRequest, CallError> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce)
            .map_err(|e| CallError::unreachable(format!("the operating system gives no random numbers: {e}")))?;
        let certificate = signer.certificate.clone();
        Ok(signed::sign(signer.key, method, &self.domain, self.now(), nonce, body.to_vec(), certificate))
    }

    /// One attempt, or two if this machine's clock was wrong. Each is signed afresh.
    pub(super) async fn signed_once<R, F, A>(
        &self,
        method: &'static str,
        signer: &Signer<'_>,
        body: &[u8],
        call: &F,
    ) -> Result<R, CallError>
    where
        F: Fn(SignedRequest) -> A,
        A: Future<Output = Result<Response<R>, Status>>,
    {
        let answer = call(self.sign(method, signer, body)?).await;
        let error = match answer {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) => CallError::from(status),
        };
        let server_time = match &error {
            CallError::Refused(refusal) if refusal.code == Code::RequestExpired => refusal.number("server_time_ms"),
            _ => None,
        };
        let Some(time) = server_time else { return Err(error) };
        self.clock.correct(Timestamp(time));
        Ok(call(self.sign(method, signer, body)?).await?.into_inner())
    }

    /// A signed call, repeated while its failure is transient.
    pub(super) async fn signed<M, R, F, A>(
        &self,
        method: &'static str,
        signer: &Signer<'_>,
        message: &M,
        call: F,
    ) -> Result<R, CallError>
    where
        M: Message,
        F: Fn(SignedRequest) -> A,
        A: Future<Output = Result<Response<R>, Status>>,
    {
        let body = message.encode_to_vec();
        retry(method, self.deadline, || self.signed_once(method, signer, &body, &call)).await
    }
}

/// Makes a method of [`Transport`] of each signed call of a service.
macro_rules! signed_calls {
    ($client:ident: $($(#[doc = $doc:literal])* $name:ident, $method:ident, $request:ident => $response:ident;)*) => {
        impl Transport {
            $(
                $(#[doc = $doc])*
                pub async fn $name(&self, signer: &Signer<'_>, request: &v1::$request) -> Result<v1::$response, CallError> {
                    self.signed(method::$method, signer, request, |signed| {
                        let mut client = self.$client();
                        async move { client.$name(signed).await }
                    })
                    .await
                }
            )*
        }
    };
}

pub(super) use signed_calls;
