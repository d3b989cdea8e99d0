//! Full names of the calls, as a signed request or a session's MAC binds them.

/// Makes the constants and one list of all of them.
macro_rules! methods {
    ($($name:ident = $service:literal / $method:literal;)*) => {
        $(
            #[doc = concat!("`", $service, ".", $method, "`")]
            pub const $name: &str = concat!("conclave.v1.", $service, "/", $method);
        )*

        /// All of them.
        pub const ALL: &[&str] = &[$($name),*];
    };
}

methods! {
    REGISTER_USER = "AuthenticationService" / "RegisterUser";
    ISSUE_CREDENTIAL = "AuthenticationService" / "IssueCredential";
    GET_USER = "AuthenticationService" / "GetUser";
    PUT_LINK = "AuthenticationService" / "PutLink";
    GET_LINK = "AuthenticationService" / "GetLink";
    APPROVE_LINK = "AuthenticationService" / "ApproveLink";
    POLL_LINK = "AuthenticationService" / "PollLink";
    UPLOAD = "KeyPackageDirectory" / "Upload";
    CLAIM = "KeyPackageDirectory" / "Claim";
    COUNT = "KeyPackageDirectory" / "Count";
    PURGE = "KeyPackageDirectory" / "Purge";
    CREATE_CHANNEL = "DeliveryService" / "CreateChannel";
    CREATE_INBOX = "DeliveryService" / "CreateInbox";
    KNOCK = "DeliveryService" / "Knock";
    OPEN_SESSION = "DeliveryService" / "OpenSession";
    SUBMIT = "DeliveryService" / "Submit";
    SUBMIT_BUNDLE = "DeliveryService" / "SubmitBundle";
    SUBMIT_EXTERNAL_PROPOSAL = "DeliveryService" / "SubmitExternalProposal";
    FETCH = "DeliveryService" / "Fetch";
    READ_GROUP_INFO = "DeliveryService" / "ReadGroupInfo";
    READ_TREE = "DeliveryService" / "ReadTree";
    TRIM = "DeliveryService" / "Trim";
    STAGE_BLOB = "DeliveryService" / "StageBlob";
    ATTACH = "DeliveryService" / "Attach";
    DETACH = "DeliveryService" / "Detach";
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_name_is_a_call_in_the_descriptors() {
        let text = String::from_utf8_lossy(crate::DESCRIPTORS);
        for name in super::ALL {
            let method = name.rsplit('/').next().unwrap();
            assert!(text.contains(method), "{name}");
        }
    }
}
