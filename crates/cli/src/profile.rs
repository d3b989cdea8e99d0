//! Which profile, and how it is opened.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    time::Duration,
};

use conclave_client::{
    Client, Services,
    profile::{Kdf, NewKey, NewProfile, Profile},
    store::{ProfileStore, Store},
};
use conclave_names::Domain;
use zeroize::Zeroizing;

use crate::{
    args::{Global, ServerArgs},
    error::CliError,
};

/// What verbs share: the profile, and its client once it is open.
pub(crate) struct Context {
    pub(crate) global: Global,
    client: Option<Client>,
}

impl Context {
    pub(crate) fn new(global: Global) -> Self {
        Self { global, client: None }
    }

    /// The directory of the profile.
    pub(crate) fn directory(&self) -> Result<PathBuf, CliError> {
        let profile = &self.global.profile;
        if profile.contains(['/', '\\']) || profile.starts_with('.') {
            return Ok(PathBuf::from(profile));
        }
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = variable("CONCLAVE_HOME")
            .or_else(|| Some(variable("XDG_DATA_HOME")?.join("conclave")))
            .or_else(|| Some(variable("HOME")?.join(".local/share/conclave")))
            .ok_or_else(|| CliError::Usage("no home directory: set CONCLAVE_HOME, or give --profile a path".into()))?;
        Ok(home.join(profile))
    }

    /// The open client; opened at first use.
    pub(crate) fn client(&mut self) -> Result<&mut Client, CliError> {
        if self.client.is_none() {
            let profile = Profile::open(&self.directory()?)?;
            let passphrase = if profile.needs_passphrase() { Some(self.passphrase(false)?) } else { None };
            let mut client = Client::open(&profile, passphrase.as_ref().map(|text| text.as_str()))?;
            client.set_deadline(Duration::from_secs(self.global.timeout));
            self.client = Some(client);
        }
        self.client.as_mut().ok_or_else(|| CliError::Usage("the profile is not open".into()))
    }

    /// Takes over a client that was just made.
    pub(crate) fn opened(&mut self, client: Client) {
        self.client = Some(client);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.client.is_some()
    }

    fn passphrase(&self, new: bool) -> Result<Zeroizing<String>, CliError> {
        PROFILE.get(self.global.passphrase_file.as_deref(), new)
    }

    /// Makes the profile, or opens the one that an interrupted registration left. Gives its store, and where its
    /// services are.
    pub(crate) fn prepare(
        &self,
        args: &ServerArgs,
        user: &str,
    ) -> Result<(Box<dyn ProfileStore>, Services, String), CliError> {
        let directory = self.directory()?;
        let (name, of_user) = match user.split_once('@') {
            Some((name, domain)) => (name.to_owned(), Some(domain.to_owned())),
            None => (user.to_owned(), None),
        };
        let (profile, key) = if Profile::exists(&directory) {
            let profile = Profile::open(&directory)?;
            let passphrase = if profile.needs_passphrase() { Some(self.passphrase(false)?) } else { None };
            let key = profile.unlock(passphrase.as_ref().map(|text| text.as_str()))?;
            (profile, key)
        } else {
            let server = args.server.clone().ok_or_else(|| {
                CliError::Usage("which server? Give its address: --server https://example.com:7443".into())
            })?;
            let domain = args.domain.clone().or(of_user).unwrap_or_else(|| host(&server).to_owned());
            let domain: Domain = domain.parse()?;
            let read = |path: &Path| std::fs::read(path).map_err(|e| CliError::Io(path.display().to_string(), e));
            let ca_pem = args.ca.as_deref().map(read).transpose()?;
            let key = if args.passphrase {
                NewKey::Passphrase(self.passphrase(true)?, Kdf::default())
            } else {
                NewKey::File(args.key_file.clone())
            };
            let mut new = NewProfile::new(server, domain, key);
            new.ca_pem = ca_pem;
            new.plaintext = args.plaintext;
            new.authentication_server.clone_from(&args.authentication_server);
            if let Some(parent) = directory.parent() {
                std::fs::create_dir_all(parent).map_err(|e| CliError::Io(parent.display().to_string(), e))?;
            }
            Profile::create(&directory, new)?
        };
        let store = Store::open(&profile, &key)?;
        Ok((Box::new(store), Services::of(&profile)?, name))
    }
}

/// The passphrase of a recovery file; a new one is asked for twice.
pub(crate) fn recovery_passphrase(file: Option<&Path>, new: bool) -> Result<Zeroizing<String>, CliError> {
    RECOVERY.get(file, new)
}

/// A passphrase, and where it comes from.
struct Passphrase {
    what: &'static str,
    variable: &'static str,
    option: &'static str,
}

const PROFILE: Passphrase =
    Passphrase { what: "profile", variable: "CONCLAVE_PASSPHRASE", option: "--passphrase-file" };

const RECOVERY: Passphrase = Passphrase {
    what: "recovery file",
    variable: "CONCLAVE_RECOVERY_PASSPHRASE",
    option: "--recovery-passphrase-file",
};

impl Passphrase {
    fn get(&self, file: Option<&Path>, new: bool) -> Result<Zeroizing<String>, CliError> {
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|e| CliError::Io(path.display().to_string(), e))?;
            let text = Zeroizing::new(text);
            return Ok(Zeroizing::new(text.trim_end_matches(['\n', '\r']).to_owned()));
        }
        if let Ok(text) = std::env::var(self.variable) {
            return Ok(Zeroizing::new(text));
        }
        if !std::io::stdin().is_terminal() {
            let (what, variable, option) = (self.what, self.variable, self.option);
            return Err(CliError::Usage(format!("the {what} has a passphrase: set {variable} or use {option}")));
        }
        let ask = |prompt: &str| {
            rpassword::prompt_password(prompt)
                .map(Zeroizing::new)
                .map_err(|error| CliError::Io("the terminal".into(), error))
        };
        let first = ask(&format!("Passphrase of the {}: ", self.what))?;
        if new && *ask("The same again: ")? != *first {
            return Err(CliError::Usage("the two passphrases differ: try again".into()));
        }
        Ok(first)
    }
}

/// The host of a URL, as far as a default needs it.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn hosts() {
        assert_eq!(host("https://example.com:7443/"), "example.com");
        assert_eq!(host("https://example.com"), "example.com");
        assert_eq!(host("example.com"), "example.com");
    }
}
