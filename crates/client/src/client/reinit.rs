//! Groups that are made anew (RFC 9420, section 11.2; RFC 9750, section 5.2.3): with another cipher suite or handshake mode, and the
//! same members, room and history.

use conclave_engine::{intent::Wish, invitation::JoinError};
use conclave_names::{ClientUri, GroupUri};
use conclave_protocol::v1;

use super::{Client, ClientError, ClientEvent, groups::key_path, rows::StoreRows};
use crate::transport::Signer;

impl Client {
    /// Makes a group anew. Until it goes on, which needs another member to come online, what is said waits. Gives its name
    /// afterwards: the new one once it went on, else the old.
    ///
    /// # Errors
    /// [`ClientError::CannotAdd`] if a member left no keying material of that suite: nothing has changed then. Nor is anything stored
    /// while the server is away: the call is to be made again.
    pub async fn reinit(
        &mut self,
        group: &GroupUri,
        cipher_suite: u16,
        visible: bool,
    ) -> Result<GroupUri, ClientError> {
        let group = self.current(group)?;
        self.sync_group(&group).await?;
        let own = self.account.client.clone();
        let others: Vec<_> = self.group(&group)?.members()?.into_iter().map(|member| member.client).collect();
        // A group must not be frozen that cannot go on.
        self.packages_of(&others, &own, cipher_suite).await?;
        self.carry_out(&group, Wish::ReInit { cipher_suite, visible }).await?;
        self.current(&group)
    }

    /// The group in which a group goes on, if it was made anew; else itself.
    pub fn current(&self, name: &GroupUri) -> Result<GroupUri, ClientError> {
        if self.groups.contains_key(name) {
            return Ok(name.clone());
        }
        let groups = self.groups()?;
        let mut current = name;
        while let Some(next) = groups.iter().find(|group| group.name == *current).and_then(|of| of.successor.as_ref()) {
            current = next;
        }
        Ok(current.clone())
    }

    /// A KeyPackage of each of these clients but our own.
    async fn packages_of(
        &mut self,
        clients: &[ClientUri],
        own: &ClientUri,
        cipher_suite: u16,
    ) -> Result<Vec<Vec<u8>>, ClientError> {
        let mut packages = Vec::new();
        for client in clients.iter().filter(|client| *client != own) {
            let answer = self.claim(client.to_string(), cipher_suite.into(), None).await?;
            let user = client.user().clone();
            let claimed = answer.key_packages.into_iter().next().ok_or_else(|| ClientError::CannotAdd {
                user: user.clone(),
                reason: format!("{client} has left no keying material of cipher suite {cipher_suite}"),
            })?;
            if self.judge_key_package(&user, &claimed.key_package)? != *client {
                return Err(ClientError::CannotAdd { user, reason: "the directory gave another's KeyPackage".into() });
            }
            packages.push(claimed.key_package);
        }
        Ok(packages)
    }

    /// Does what a frozen group needs of us: makes the successor when it is our turn, and goes on in it.
    pub(super) async fn go_on(&mut self, name: &GroupUri) -> Result<Vec<ClientEvent>, ClientError> {
        let mut all = Vec::new();
        let now = self.delivery.now();
        if self.group(name)?.successor_due().is_some_and(|due| due <= now) {
            let (suite, clients) = self.group(name)?.successor_needs()?;
            let own = self.account.client.clone();
            let packages = self.packages_of(&clients, &own, suite).await?;
            self.group(name)?.make_successor(&packages, now)?;
            self.save(name)?;
            all.extend(Box::pin(self.drive(name, None)).await?);
        }
        if self.groups.get(name).is_some_and(conclave_engine::group::Group::has_successor) {
            match self.succeed(name).await {
                Ok(more) => all.extend(more),
                Err(error) => return Err(self.keep(all, error)),
            }
        }
        Ok(all)
    }

    async fn succeed(&mut self, name: &GroupUri) -> Result<Vec<ClientEvent>, ClientError> {
        let now = self.delivery.now();
        let Some(mut old) = self.groups.remove(name) else { return Ok(Vec::new()) };
        self.sessions.remove(name);
        let mut next = match old.succeed(&StoreRows(&*self.store), now) {
            Ok(next) => next,
            Err(JoinError::Store(error)) => return Err(error.into()),
            Err(error) => {
                let told = old.left_out(&error.to_string());
                self.store.apply(&old.take_writes()?)?;
                return Ok(told.into_iter().map(|event| ClientEvent { group: name.clone(), event }).collect());
            }
        };
        let mut writes = old.take_writes()?;
        writes.extend(next.take_writes()?);
        self.store.apply(&writes)?;
        let name = next.name().clone();
        self.groups.insert(name.clone(), next);
        let mut all = self.sync_group(&name).await?;
        match Box::pin(self.drive(&name, None)).await {
            Ok(more) => all.extend(more),
            Err(error) => return Err(self.keep(all, error)),
        }
        Ok(all)
    }

    /// Has the DS make the channel of a group that goes on in it, unless it has.
    pub(super) async fn found(&mut self, name: &GroupUri) -> Result<(), ClientError> {
        let Some(founding) = self.group(name)?.founding()? else { return Ok(()) };
        self.delivery
            .create_channel(
                &Signer::bare(&founding.key),
                &v1::CreateChannelRequest {
                    channel: founding.channel.to_vec(),
                    key_root: founding.key_root.to_vec(),
                    group_info: founding.group_info,
                    epoch: founding.epoch.0,
                    path: Some(key_path(&founding.path)),
                },
            )
            .await?;
        self.group(name)?.founded();
        self.save(name)
    }
}
