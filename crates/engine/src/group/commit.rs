//! Making a commit and all that belongs to it.

use std::collections::BTreeMap;

use conclave_channel::{Body, CommitHeader, Entry, EntryKind, access::ChannelKey, chain};
use conclave_mls::{
    address::DeliveryAddress,
    components::{ChannelKeyExtension, CommitAad, HandshakeAad},
    crypto::SuiteProvider,
    seal::{Purpose, epoch_context},
    welcome::{JoinerInfo, JoinerKey, WelcomeParts},
};
use conclave_names::{Epoch, Hash, IdempotencyKey, Timestamp, UserUri, limits};
use conclave_protocol::v1::{SubmitBundleRequest, WelcomeBundle, WelcomePart};
use ed25519_dalek::SigningKey;
use mls_rs::{
    MlsMessage,
    group::{
        CommitEffect, CommitOutput, CommitSecrets,
        proposal::{AddProposal, Proposal},
    },
};
use mls_rs_codec::{MlsDecode, MlsEncode};
use prost::Message as _;
use zeroize::Zeroizing;

use super::{
    Group,
    access::{channel_key_at, each_member, fault, own_channel_key},
    create::export_seed,
    group_info::SealedGroupInfo,
    reinit::Successor,
    tree::renews_key,
    view::client_of,
};
use crate::{
    intent::Prepared,
    mls_client::{MlsError, MlsGroup, leaf_extensions, mls_time, random, signature_secret, suite},
};

/// What a commit is to change, beyond what others have proposed.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub(super) add: Vec<MlsMessage>,
    pub(super) remove: Vec<u32>,
    pub(super) renew_own_keys: bool,
    pub(super) reinit: Option<Successor>,
}

/// A commit that was built, and what its authenticated data had to foretell of it.
struct Built {
    output: CommitOutput,
    secrets: CommitSecrets,
    /// The group after it, where more must be known of that than was foretold.
    next: Option<MlsGroup>,
    actual: Foretold,
    joiner_key: JoinerKey,
}

impl Built {
    fn next(&self) -> Result<&MlsGroup, MlsError> {
        self.next.as_ref().ok_or_else(|| fault("the commit was not applied"))
    }
}

/// What the authenticated data of a commit says of the epoch that it starts.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Foretold {
    key_root: Hash,
    members: u32,
    removed: u32,
}

impl Foretold {
    fn removes(self) -> bool {
        self.removed > 0
    }

    fn renews_tree_key(self) -> bool {
        renews_key(self.removed, self.members)
    }
}

/// Keeps a body inline if it fits, else makes it a blob.
pub(super) fn body_of(sealed: Vec<u8>, blobs: &mut Vec<Vec<u8>>) -> Body {
    if sealed.len() <= limits::INLINE_BODY {
        return Body::Inline(sealed);
    }
    let body = Body::Staged { hash: chain::entry_hash(&sealed), size: sealed.len() as u64 };
    blobs.push(sealed);
    body
}

impl Group {
    /// Leaves of all clients of these users.
    pub(super) fn leaves_of(&self, users: &[UserUri]) -> Result<Vec<u32>, MlsError> {
        let mut leaves = Vec::new();
        let mut refused = Ok(());
        each_member(&self.mls.export_tree(), |index, identity, _| {
            refused = client_of(identity).map(|client| {
                if users.contains(client.user()) {
                    leaves.push(index);
                }
            });
            refused.is_ok()
        });
        refused.map(|()| leaves)
    }

    /// Builds a commit in the present epoch and everything that goes into its bundle. The ratchet that encrypted it has
    /// moved on; nothing else has changed.
    pub(super) fn prepare_commit(&mut self, change: &Change, now: Timestamp) -> Result<Prepared, MlsError> {
        let provider = suite(self.mls.cipher_suite())?;
        let key = IdempotencyKey::new(random(&provider)?);
        let channel_key = if change.renew_own_keys {
            let key = SigningKey::from_bytes(&random(&provider)?);
            self.channel_keys.push(key.clone());
            Some(key)
        } else {
            None
        };
        let mut foretold = self.foretell(change, channel_key.as_ref())?;
        let mut built = self.build(change, channel_key.as_ref(), foretold, &provider, now)?;
        if built.actual != foretold {
            // A proposal of somebody else was filtered out: say what is really so.
            foretold = built.actual;
            built = self.build(change, channel_key.as_ref(), foretold, &provider, now)?;
            if built.actual != foretold {
                return Err(fault("a commit of the same proposals leads to another group each time"));
            }
        }
        let epoch = self.epoch();
        let next_epoch = epoch.next();
        let channel = self.profile.channel;
        let sealing = self.seed(epoch).cloned().ok_or_else(|| fault("no group seed"))?;
        let (seed_epoch, next_seed) = if foretold.removes() {
            (next_epoch, export_seed(built.next()?, &channel)?)
        } else {
            let since = self.seeds.range(..=epoch).next_back().map_or(epoch, |(since, _)| *since);
            (since, sealing.clone())
        };

        let mut blobs = Vec::new();
        let tree = built.output.ratchet_tree().ok_or_else(|| fault("no ratchet tree"))?;
        let renews_tree_key = foretold.renews_tree_key();
        let renewed = renews_tree_key.then(|| built.next()).transpose()?;
        let (offer, tree_key) = self.offer_tree(renewed, tree)?;
        let tree_key_epoch = if renews_tree_key { next_epoch } else { self.tree_key_since(epoch) };
        let context = epoch_context(&channel, next_epoch);
        let (tree_added, chunks): (Vec<_>, Vec<_>) =
            offer.changed.added.into_iter().map(|(name, sealed)| (name.to_vec(), sealed)).unzip();
        let tree_dropped = offer.changed.dropped.iter().map(Hash::to_vec).collect();
        blobs.extend(chunks);

        let join_key = SigningKey::from_bytes(&random(&provider)?);
        let info = built.output.external_commit_group_info().ok_or_else(|| fault("no GroupInfo"))?;
        let place = (self.window.position(), self.logged().clone());
        let info = SealedGroupInfo::new(&join_key, (tree_key_epoch, &tree_key), offer.root, place, info.to_bytes()?);
        // The DS of a visible group has the tree itself, and checks the GroupInfo.
        let visible = self.is_visible();
        // Nobody comes into a frozen group from outside: by such a commit no one would go on. The DS of a visible group sees to it.
        let open = !visible && change.reinit.is_none();
        let group_info = if visible {
            info.group_info.clone()
        } else if !open {
            Vec::new()
        } else {
            next_seed.seal(&provider, Purpose::GroupInfo, &context, info.to_bytes()?.to_vec()).map_err(fault)?
        };

        let commit = built.output.commit_message().to_bytes()?;
        let body = if visible { commit } else { self.seal(EntryKind::Commit, epoch, commit)? };
        let committer = own_channel_key(&self.mls)?;
        let Foretold { key_root, members, removed } = foretold;
        let header = CommitHeader { committer, removed, members, key_root };
        let entry = Entry::commit(epoch, header, body_of(body, &mut blobs)).to_bytes().map_err(fault)?;
        let commit = chain::entry_hash(&entry);
        let (position, ledger) = (self.window.position(), self.logged().clone());
        let (seed, tree_key) = ((seed_epoch, &next_seed), (tree_key_epoch, &tree_key));
        let (standing, apart) = built.joiner_key.standing(&provider, &ledger).map_err(fault)?;
        let joiner = JoinerInfo::new(seed, tree_key, offer.root, position, standing, commit);
        let welcome = self.welcome(&built, change, &joiner, &provider)?;
        let apart = apart.filter(|_| welcome.is_some());
        let joiners = apart.as_deref().map(chain::entry_hash);
        blobs.extend(apart);
        let bundle = SubmitBundleRequest {
            idempotency_key: key.to_vec(),
            entry: entry.clone(),
            base_seq: self.window.position().seq.0,
            group_info,
            tree: if visible { Vec::new() } else { offer.root.to_vec() },
            tree_added,
            tree_dropped,
            tree_whole: offer.whole,
            joiners: joiners.as_ref().map(Hash::to_vec).unwrap_or_default(),
            join_key: if open { join_key.verifying_key().to_bytes().to_vec() } else { Vec::new() },
            welcome,
        };
        self.foresee_tree(commit, offer.changed.names);
        Ok(Prepared {
            key,
            epoch,
            entry,
            bundle: Some(bundle.encode_to_vec()),
            blobs,
            secrets: Zeroizing::new(built.secrets.to_bytes()?),
        })
    }

    /// The channel keys and the kind of change that a commit of `change` and the cached proposals leads to.
    fn foretell(&self, change: &Change, own: Option<&SigningKey>) -> Result<Foretold, MlsError> {
        let me = self.mls.current_member_index();
        // What becomes of leaves; none: it goes.
        let mut leaves: BTreeMap<u32, Option<ChannelKey>> = change.remove.iter().map(|index| (*index, None)).collect();
        let mut added: Vec<ChannelKey> = Vec::new();
        let left_out = self.not_to_commit();
        let cached = self.mls.get_cached_proposals();
        for cached in cached.iter().filter(|cached| !left_out.contains(cached.proposal_ref().as_slice())) {
            // A proposal of somebody else may have no valid key; the commit will leave it out.
            match (cached.proposal(), cached.sender()) {
                // Nobody commits its own removal: MLS leaves it out.
                (Proposal::Remove(remove), _) if remove.to_remove() == me => {}
                (Proposal::Remove(remove), _) => {
                    leaves.insert(remove.to_remove(), None);
                }
                (Proposal::Add(add), _) => added.extend(ChannelKeyExtension::of(&add.leaf_node_extensions())),
                (Proposal::Update(update), mls_rs::group::Sender::Member(index)) => {
                    if let Ok(key) = ChannelKeyExtension::of(&update.leaf_node_extensions()) {
                        leaves.entry(*index).or_insert(Some(key));
                    }
                }
                _ => {}
            }
        }
        for message in &change.add {
            let package = message.as_key_package().ok_or_else(|| fault("not a KeyPackage"))?;
            added.push(ChannelKeyExtension::of(&as_add(package)?.leaf_node_extensions()).map_err(fault)?);
        }
        if let Some(key) = own {
            leaves.insert(me, Some(ChannelKey(key.verifying_key().to_bytes())));
        }
        let (mut before, mut removed) = (Vec::new(), 0);
        for (index, key) in &leaves {
            // Of a leaf that is not there any more nothing comes.
            let Ok(earlier) = channel_key_at(&self.mls, *index) else { continue };
            before.push(earlier);
            added.extend(key);
            removed += u32::from(key.is_none());
        }
        let keys = &self.keys()?.tree;
        match keys.changed(&before, &added) {
            Ok(tree) => Ok(Foretold { key_root: tree.root(), members: tree.len(), removed }),
            // Two leaves would have one key. Whose proposal is left out for that is known once the commit is built.
            Err(_) if self.mls.commit_required() => {
                Ok(Foretold { key_root: keys.root(), members: keys.len(), removed })
            }
            Err(error) => Err(fault(error)),
        }
    }

    fn build(
        &mut self,
        change: &Change,
        own: Option<&SigningKey>,
        foretold: Foretold,
        provider: &SuiteProvider,
        now: Timestamp,
    ) -> Result<Built, MlsError> {
        let joiner_key = JoinerKey::generate(provider).map_err(fault)?;
        let aad = HandshakeAad {
            position: self.window.position(),
            commit: Some(CommitAad {
                key_root: foretold.key_root,
                renews_seed: foretold.removes(),
                renews_tree_key: foretold.renews_tree_key(),
            }),
        };
        let aad = aad.in_epoch(self.epoch_tag()?).map_err(fault)?;
        let left_out = self.not_to_commit();
        // Whatever comes of it, a key of the handshake ratchet may have been used: no other commit may use it in this epoch.
        self.note_handshake();
        let mut builder = self
            .mls
            .commit_builder()
            .commit_time(mls_time(now))
            .authenticated_data(aad)
            .set_group_info_ext(joiner_key.to_extensions().map_err(fault)?);
        for message in &change.add {
            builder = builder.add_member(message.clone())?;
        }
        for index in &change.remove {
            builder = builder.remove_member(*index)?;
        }
        if let Some(new) = &change.reinit {
            let name = new.name.to_string().into_bytes();
            builder = builder.reinit(Some(name), Self::successor_version(), new.suite, new.extensions.clone())?;
        }
        if let Some(key) = own {
            builder = builder.set_leaf_node_extensions(leaf_extensions(key)?).set_new_signing_identity(
                signature_secret(&self.account.signature_key),
                self.account.signing_identity(),
            );
        }
        let (output, secrets) = self.shared.leaving_out(&left_out, || builder.build_detached())?;
        if !self.mls.commit_required() && !foretold.removes() {
            // What we propose ourselves is committed as it is, or refused.
            return Ok(Built { output, secrets, next: None, actual: foretold, joiner_key });
        }
        let mut next = self.mls.clone();
        let description = next.apply_detached_commit(secrets.clone())?;
        let removed = match &description.effect {
            CommitEffect::NewEpoch(epoch) => {
                let applied = &epoch.applied_proposals;
                applied.iter().filter(|info| matches!(info.proposal, Proposal::Remove(_))).count()
            }
            CommitEffect::ReInit(_) => 0,
            CommitEffect::Removed { .. } => return Err(fault("a commit of ours must start an epoch for us")),
        };
        let removed = u32::try_from(removed).map_err(fault)?;
        let keys = self.keys()?.after(&next)?.tree;
        let actual = Foretold { key_root: keys.root(), members: keys.len(), removed };
        Ok(Built { output, secrets, next: Some(next), actual, joiner_key })
    }

    fn welcome(
        &self,
        built: &Built,
        change: &Change,
        joiner: &JoinerInfo,
        provider: &SuiteProvider,
    ) -> Result<Option<WelcomeBundle>, MlsError> {
        let Some(message) = built.output.welcome_messages().first() else { return Ok(None) };
        let mut addresses = BTreeMap::new();
        let by_value = change.add.iter().filter_map(|message| message.as_key_package()).cloned();
        let by_reference = self.mls.get_cached_proposals().into_iter().filter_map(|cached| match cached.proposal() {
            Proposal::Add(add) => Some(add.key_package().clone()),
            _ => None,
        });
        for package in by_value.chain(by_reference) {
            let reference = package.to_reference(provider)?;
            // One that has none was left out of the commit.
            if let Ok(address) = DeliveryAddress::of(&package.extensions) {
                addresses.insert(reference.to_vec(), address);
            }
        }
        let parts = WelcomeParts::split(&message.to_bytes()?).map_err(fault)?;
        let attachment = built.joiner_key.seal(provider, joiner).map_err(fault)?;
        let part = |(reference, secrets): (Vec<u8>, Vec<u8>)| {
            let address = addresses.get(&reference).ok_or_else(|| fault("a joiner without an address"))?;
            Ok(WelcomePart {
                domain: address.domain().map_err(fault)?.to_string(),
                address: address.sealed.clone(),
                secrets,
            })
        };
        Ok(Some(WelcomeBundle {
            cipher_suite: parts.cipher_suite.into(),
            encrypted_group_info: parts.encrypted_group_info,
            parts: parts.secrets.into_iter().map(part).collect::<Result<_, MlsError>>()?,
            attachment,
        }))
    }

    /// Forgets channel keys that no leaf of ours has or will have.
    pub(super) fn prune_channel_keys(&mut self) {
        // Verdicts are proven by the settled epoch's key, and the group may go back to it.
        let under_way = !self.ledger.open().is_empty() || self.intents.values().any(|intent| intent.prepared.is_some());
        if let (false, Ok(own)) = (under_way, own_channel_key(&self.mls)) {
            let gone = std::mem::take(&mut self.channel_keys);
            let (kept, gone) = gone.into_iter().partition(|key| key.verifying_key().to_bytes() == own.0);
            self.channel_keys = kept;
            self.remember_former(&gone);
        }
    }
}

/// A KeyPackage as an Add proposal, whose encoding is the same (RFC 9420, section 12.1.1): mls-rs shows the leaf of that
/// only.
pub(super) fn as_add(package: &mls_rs::KeyPackage) -> Result<AddProposal, MlsError> {
    let bytes = package.mls_encode_to_vec().map_err(fault)?;
    AddProposal::mls_decode(&mut bytes.as_slice()).map_err(fault)
}

/// The epoch that a prepared change belongs to is over.
pub(super) fn is_outdated(prepared: &Prepared, current: Epoch) -> bool {
    // A message may still be on its way into the epoch after its own.
    let last = if prepared.bundle.is_some() { prepared.epoch } else { prepared.epoch.next() };
    last < current
}
