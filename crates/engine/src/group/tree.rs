//! The ratchet tree, as it is kept for joiners: in chunks at the hub, of which a commit uploads what is new.

use conclave_channel::chain;
use conclave_mls::tree_chunks::{self, Changed, ChunkNames, Held, Keyed};
use conclave_names::{Epoch, Hash};
use mls_rs::group::ExportedTree;

use super::{Group, access::fault, create::export_key};
use crate::mls_client::{MlsError, MlsGroup, suite};

/// Members up to whom a removal renews the tree key, and so uploads the whole tree. Of larger trees the former members
/// keep a key that opens later chunks; but chunks are served by name only, and the names are sealed under the group seed.
const RENEWED_UP_TO: u32 = 1024;

/// Exporter label of the tree key.
pub(super) const TREE_KEY_LABEL: &[u8] = b"conclave/v1/tree-key";

/// The chunks that a commit of ours leads to.
pub(super) struct Offer {
    pub(super) root: Hash,
    pub(super) changed: Changed,
    /// Whether everything is uploaded.
    pub(super) whole: bool,
}

/// Names of chunks that this program has computed before: those of the present tree, and of the one that a commit of ours
/// would lead to.
#[derive(Default)]
pub(super) struct Known {
    present: Option<(Epoch, ChunkNames)>,
    next: Option<(Hash, ChunkNames)>,
}

/// Whether a commit renews the tree key.
pub(super) fn renews_key(removed: u32, members: u32) -> bool {
    removed > 0 && members <= RENEWED_UP_TO
}

impl Group {
    /// Works out what is to be uploaded with a commit: `next` is the tree after it, and `renewed` the group after it
    /// if it renews the tree key.
    pub(super) fn offer_tree(
        &self,
        renewed: Option<&MlsGroup>,
        next: &ExportedTree<'_>,
    ) -> Result<(Offer, conclave_mls::seal::Seed), MlsError> {
        let provider = suite(self.mls.cipher_suite())?;
        let old_key = self.tree_key(self.epoch()).ok_or_else(|| fault("no tree key"))?;
        let new_key = match renewed {
            Some(next) => export_key(next, TREE_KEY_LABEL, &self.profile.channel)?,
            None => old_key.clone(),
        };
        if self.is_visible() {
            // The DS keeps it as it is, and serves it by its hash.
            let changed = Changed { names: ChunkNames::default(), added: Vec::new(), dropped: Vec::new() };
            return Ok((Offer { root: chain::entry_hash(&next.to_bytes()?), changed, whole: false }, new_key));
        }
        let after = Held(next.nodes());
        let whole = self.offers_whole_tree || renewed.is_some();
        let after = Keyed { key: &new_key, nodes: &after };
        let changed = if whole {
            tree_chunks::changes(&provider, None, after, after)
        } else {
            let present = self.mls.export_tree();
            let before = Held(present.nodes());
            let before = Keyed { key: old_key, nodes: &before };
            let computed;
            let names = match &self.tree_names.present {
                Some((epoch, names)) if *epoch == self.epoch() => names,
                _ => {
                    computed = tree_chunks::names(&provider, before).map_err(fault)?;
                    &computed
                }
            };
            tree_chunks::changes(&provider, Some(names), before, after)
        };
        let changed = changed.map_err(fault)?;
        let root = changed.names.root().ok_or_else(|| fault("no tree"))?;
        Ok((Offer { root, changed, whole }, new_key))
    }

    /// Remembers the names of the tree that a commit of ours would lead to.
    pub(super) fn foresee_tree(&mut self, commit: Hash, names: ChunkNames) {
        self.tree_names.next = Some((commit, names));
    }

    /// A commit began the present epoch: the server has its tree, if its committer was honest.
    pub(super) fn tree_began(&mut self, commit: &Hash) {
        self.offers_whole_tree = false;
        let own = self.tree_names.next.take().filter(|(by, _)| by == commit);
        self.tree_names.present = own.map(|(_, names)| (self.epoch(), names));
    }

    /// The server has no tree of the present epoch.
    pub(super) fn tree_lost(&mut self) {
        self.offers_whole_tree = true;
        self.tree_names = Known::default();
        self.touched = true;
    }

    /// The tree key in force in an epoch.
    pub(super) fn tree_key(&self, epoch: Epoch) -> Option<&conclave_mls::seal::Seed> {
        self.tree_keys.range(..=epoch).next_back().map(|(_, key)| key)
    }

    /// Since when the tree key of an epoch is in force.
    pub(super) fn tree_key_since(&self, epoch: Epoch) -> Epoch {
        self.tree_keys.range(..=epoch).next_back().map_or(epoch, |(since, _)| *since)
    }

    pub(super) fn add_tree_key(&mut self, epoch: Epoch, key: conclave_mls::seal::Seed) {
        self.tree_keys.insert(epoch, key);
        // The settled epoch's must stay: the group may go back to it.
        let needed = self.tree_keys.range(..=self.ledger.settled()).next_back().map(|(since, _)| *since);
        while self.tree_keys.first_key_value().map(|(since, _)| *since) < needed {
            self.tree_keys.pop_first();
        }
    }
}
