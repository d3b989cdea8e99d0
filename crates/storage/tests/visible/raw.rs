//! A member without an engine: bare mls-rs without our rules, so that it can send what no engine would.

use conclave_channel::{
    Body, CommitHeader, Entry, EntryKind, Position,
    access::{ChannelKey, KeyTree},
};
use conclave_engine::{account::Account, group::Access};
use conclave_mls::{
    address::{DeliveryAddress, DropToken, SealedAddress},
    components::{
        AppDataDictionary, ChannelKeyExtension, CommitAad, GroupProfile, HandshakeAad, HandshakeMode, roster_keys,
    },
    crypto::{self, CryptoProvider},
    identity::Identities,
    seal::{Purpose, Seed, entry_context},
    tree_chunks::Assembly,
    welcome::{InboxWelcome, JoinerKey},
};
use conclave_names::{ChannelId, Epoch, code_points, limits};
use conclave_protocol::{SigningKey, v1};
use mls_rs::{
    Client, ExtensionList, Group, MlsMessage,
    client_builder::{BaseConfig, WithCryptoProvider, WithIdentityProvider, WithMlsRules},
    extension::ExtensionType,
    group::{CommitBuilder, CommitOutput, ExportedTree},
    mls_rules::{CommitOptions, DefaultMlsRules, EncryptionOptions},
    time::MlsTime,
};

use crate::{
    person::account,
    world::{World, domain, random},
};

pub(crate) type Config =
    WithMlsRules<DefaultMlsRules, WithIdentityProvider<Identities, WithCryptoProvider<CryptoProvider, BaseConfig>>>;

pub(crate) struct Raw {
    pub(crate) account: Account,
    pub(crate) client: Client<Config>,
    pub(crate) channel_key: SigningKey,
    pub(crate) group: Option<Group<Config>>,
    seed: Option<Seed>,
    pub(crate) channel: Option<ChannelId>,
}

/// What a commit is to be, beyond what mls-rs makes of it.
#[derive(Default, Clone)]
pub(crate) struct Twist {
    /// Another header than the true one.
    pub(crate) header: Option<fn(CommitHeader) -> CommitHeader>,
    /// Other authenticated data than the true one.
    pub(crate) aad: Option<Vec<u8>>,
    /// A position that the sender claims.
    pub(crate) position: Option<Position>,
    /// Another GroupInfo than the epoch's.
    pub(crate) group_info: Option<Vec<u8>>,
}

pub(crate) fn mls_time(world: &World) -> MlsTime {
    MlsTime::from(world.now.as_secs())
}

impl Raw {
    /// Encrypts its handshakes if `private`.
    pub(crate) fn new(world: &mut World, name: &str, private: bool) -> Self {
        let account = account(world, name);
        Self::with(account, private)
    }

    pub(crate) fn with(account: Account, private: bool) -> Self {
        let public = account.signature_key.verifying_key().to_bytes();
        let rules = DefaultMlsRules::new()
            .with_encryption_options(EncryptionOptions::new(private, mls_rs::client_builder::PaddingMode::None))
            .with_commit_options(
                CommitOptions::new()
                    .with_path_required(true)
                    .with_ratchet_tree_extension(false)
                    .with_allow_external_commit(true),
            );
        let extensions = [
            code_points::EXTENSION_APP_DATA_DICTIONARY,
            code_points::EXTENSION_DELIVERY_ADDRESS,
            code_points::EXTENSION_CHANNEL_KEY,
        ];
        let client = Client::builder()
            .crypto_provider(crypto::provider())
            .identity_provider(Identities::new(account.parsed_issuers()))
            .mls_rules(rules)
            .extension_types(extensions.map(ExtensionType::new))
            .key_package_lifetime(std::time::Duration::from_secs(limits::KEY_PACKAGE_LIFETIME - 3600))
            .signing_identity(
                account.signing_identity(),
                [account.signature_key.to_bytes(), public].concat().into(),
                crypto::DEFAULT_SUITE,
            )
            .build();
        let channel_key = SigningKey::from_bytes(&random());
        Self { account, client, channel_key, group: None, seed: None, channel: None }
    }

    pub(crate) fn leaf_extensions(&self) -> ExtensionList {
        let mut leaf = ExtensionList::new();
        leaf.set_from(ChannelKeyExtension(ChannelKey(self.channel_key.verifying_key().to_bytes()))).unwrap();
        leaf.set(AppDataDictionary::for_leaf().unwrap().to_extension().unwrap());
        leaf
    }

    /// Where a Welcome reaches it, once.
    pub(crate) fn address(&self, world: &mut World) -> DeliveryAddress {
        let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
        let expires = world.now.plus_ms(86_400_000);
        let token = DropToken::mint(&self.account.inbox.drop_key, self.account.inbox.id, random(), 1, expires);
        let key = world.address_key();
        DeliveryAddress::new(&domain(), &SealedAddress::seal(&suite, &key.public.into(), key.id, &token).unwrap())
            .unwrap()
    }

    /// A KeyPackage with these leaf extensions and this address.
    pub(crate) fn key_package_at(
        &self,
        world: &World,
        leaf: ExtensionList,
        address: Option<DeliveryAddress>,
    ) -> Vec<u8> {
        let mut extensions = ExtensionList::new();
        if let Some(address) = address {
            extensions.set_from(address).unwrap();
        }
        let message = self.client.generate_key_package_message(extensions, leaf, Some(mls_time(world))).unwrap();
        message.to_bytes().unwrap()
    }

    /// A KeyPackage with these leaf extensions, with an address if it is to have one.
    pub(crate) fn key_package_with(&self, world: &mut World, leaf: ExtensionList, address: bool) -> Vec<u8> {
        let address = address.then(|| self.address(world));
        self.key_package_at(world, leaf, address)
    }

    pub(crate) fn key_package(&self, world: &mut World) -> Vec<u8> {
        self.key_package_with(world, self.leaf_extensions(), true)
    }

    /// Joins by the newest Welcome.
    pub(crate) fn join(&mut self, world: &mut World) {
        let entry = world.inbox(self.account.inbox.id, &self.account.inbox.key).remove(0);
        let Body::Inline(padded) = Entry::parse(&entry).unwrap().body else { panic!("a Welcome is inline") };
        let welcome = InboxWelcome::parse(&conclave_channel::size_class::unpad(padded).unwrap()).unwrap();
        let message = welcome.to_message().unwrap();
        let info = self.client.examine_welcome_message(&message).unwrap();
        let profile = GroupProfile::of(&info.group_context().extensions).unwrap();
        let key = JoinerKey::of(info.extensions()).unwrap();
        let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
        let joiner = key.open(&suite, &welcome.attachment).unwrap();
        let seed = joiner.seed().unwrap();
        let tree = if profile.mode == HandshakeMode::Private {
            let mut assembly = Assembly::new(joiner.tree, joiner.tree_key().unwrap());
            loop {
                let Some(name) = assembly.wanted().next() else { break };
                assembly.give(&suite, &world.blob(&name).unwrap()).unwrap();
            }
            assembly.finish().unwrap()
        } else {
            world.blob(&joiner.tree).unwrap()
        };
        let tree = ExportedTree::from_bytes(&tree).unwrap().into_owned();
        let (group, _) = self.client.join_group(Some(tree), &message, None).unwrap();
        self.channel = Some(profile.channel);
        self.seed = Some(seed);
        self.group = Some(group);
    }

    pub(crate) fn group(&mut self) -> &mut Group<Config> {
        self.group.as_mut().unwrap()
    }

    fn keys(group: &Group<Config>) -> KeyTree {
        let leaves: Vec<_> = group.roster().members_iter().map(|member| member.extensions).collect();
        roster_keys(&leaves).unwrap()
    }

    /// By our leaf of the epoch that we are in.
    pub(crate) fn access(&self) -> Access {
        let group = self.group.as_ref().unwrap();
        let public = ChannelKey(self.channel_key.verifying_key().to_bytes());
        Access {
            channel: self.channel.unwrap(),
            epoch: Epoch(group.current_epoch()),
            key: self.channel_key.clone(),
            path: Self::keys(group).path(&public).unwrap(),
        }
    }

    /// What the DS or a member orders next is processed.
    pub(crate) fn read(&mut self, entry: &[u8]) {
        let Body::Inline(body) = Entry::parse(entry).unwrap().body else { panic!("it is short") };
        self.group().process_incoming_message(MlsMessage::from_bytes(&body).unwrap()).unwrap();
    }

    /// Builds a commit; nothing changes here.
    pub(crate) fn commit(
        &self,
        world: &World,
        twist: &Twist,
        change: impl Fn(CommitBuilder<'_, Config>) -> CommitBuilder<'_, Config>,
    ) -> v1::SubmitBundleRequest {
        // The authenticated data must foretell what becomes of the commit: so it is built twice.
        let wrong = HandshakeAad { position: Position::start(&self.channel.unwrap()), commit: None };
        let (_, next, removed) = self.build(world, wrong.to_bytes().unwrap(), &change);
        let keys = Self::keys(&next);
        let position = twist.position.unwrap_or_else(|| Position::start(&self.channel.unwrap()));
        let aad = HandshakeAad {
            position,
            commit: Some(CommitAad { key_root: keys.root(), renews_seed: removed > 0, renews_tree_key: false }),
        };
        let aad = twist.aad.clone().unwrap_or_else(|| aad.to_bytes().unwrap());
        let (output, _, _) = self.build(world, aad, &change);
        let group = self.group.as_ref().unwrap();
        let header = CommitHeader {
            committer: ChannelKey(self.channel_key.verifying_key().to_bytes()),
            removed,
            members: keys.len(),
            key_root: keys.root(),
        };
        let header = twist.header.map_or(header, |twist| twist(header));
        let info = output.external_commit_group_info().unwrap().to_bytes().unwrap();
        let body = output.commit_message().to_bytes().unwrap();
        let entry = Entry::commit(Epoch(group.current_epoch()), header, Body::Inline(body));
        v1::SubmitBundleRequest {
            idempotency_key: random::<16>().to_vec(),
            entry: entry.to_bytes().unwrap(),
            base_seq: 1,
            group_info: twist.group_info.clone().unwrap_or(info),
            ..v1::SubmitBundleRequest::default()
        }
    }

    fn build(
        &self,
        world: &World,
        aad: Vec<u8>,
        change: &impl Fn(CommitBuilder<'_, Config>) -> CommitBuilder<'_, Config>,
    ) -> (CommitOutput, Group<Config>, u32) {
        let mut group = self.group.clone().unwrap();
        let before = group.roster().members_iter().count();
        let builder = group.commit_builder().authenticated_data(aad).commit_time(mls_time(world));
        let output = change(builder).build().unwrap();
        let description = group.apply_pending_commit().unwrap();
        let added = match description.effect {
            mls_rs::group::CommitEffect::NewEpoch(epoch) => epoch
                .applied_proposals()
                .iter()
                .filter(|info| matches!(info.proposal, mls_rs::group::proposal::Proposal::Add(_)))
                .count(),
            _ => 0,
        };
        let after = group.roster().members_iter().count();
        let removed = u32::try_from(before + added - after).unwrap();
        (output, group, removed)
    }

    /// The entry of a proposal, in the clear.
    pub(crate) fn proposal(&self, message: &MlsMessage) -> v1::SubmitRequest {
        let epoch = Epoch(self.group.as_ref().unwrap().current_epoch());
        let body = Body::Inline(message.to_bytes().unwrap());
        let entry = Entry::new(EntryKind::Proposal, epoch, body).to_bytes().unwrap();
        v1::SubmitRequest { idempotency_key: random::<16>().to_vec(), entry }
    }

    /// The same, sealed, as those of private groups are.
    pub(crate) fn sealed_proposal(&self, message: &MlsMessage) -> v1::SubmitRequest {
        let epoch = Epoch(self.group.as_ref().unwrap().current_epoch());
        let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
        let context = entry_context(&self.channel.unwrap(), EntryKind::Proposal.code(), epoch);
        let seed = self.seed.as_ref().unwrap();
        let sealed = seed.seal(&suite, Purpose::Entry, &context, message.to_bytes().unwrap()).unwrap();
        let entry = Entry::new(EntryKind::Proposal, epoch, Body::Inline(sealed)).to_bytes().unwrap();
        v1::SubmitRequest { idempotency_key: random::<16>().to_vec(), entry }
    }

    pub(crate) fn proposal_aad(&self) -> Vec<u8> {
        HandshakeAad { position: Position::start(&self.channel.unwrap()), commit: None }.to_bytes().unwrap()
    }

    /// Seals what a bundle has in the clear, as a private group's commit is.
    pub(crate) fn seal(&self, bundle: &mut v1::SubmitBundleRequest) {
        let mut entry = Entry::parse(&bundle.entry).unwrap();
        let Body::Inline(body) = entry.body else { panic!("it is inline") };
        let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
        let context = entry_context(&self.channel.unwrap(), EntryKind::Commit.code(), entry.epoch);
        let sealed = self.seed.as_ref().unwrap().seal(&suite, Purpose::Entry, &context, body).unwrap();
        entry.body = Body::Inline(sealed);
        bundle.entry = entry.to_bytes().unwrap();
    }
}
