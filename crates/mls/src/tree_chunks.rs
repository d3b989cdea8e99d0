//! Ratchet trees in sealed chunks (RFC 9420, section 7.8 has the array that is cut up).
//!
//! A tree travels beside the Welcome, and of a large group it is megabytes, of which a commit changes little. So it is
//! cut into a tree of chunks: a chunk of level 0 has the nodes of a subtree of 16 leaves; one of level n has up to 16
//! chunks of the level below, by name, and the parents between them. A chunk's name is the SHA-256 of its sealed bytes,
//! as of any blob. The one at the top names the whole; a change of one leaf changes one chunk a level.
//!
//! A chunk is sealed under the group's *tree key*, with a salt that is derived from key and content: so all members
//! arrive at the same bytes and the same name, and a committer uploads only what is new, whoever uploaded the rest. Key and
//! nonce come twice only for the same content. What that tells the DS is which chunks stayed the same, as their names would.
//!
//! Plaintext: `struct { uint8 version = 1; uint8 level; opaque nodes<V>; opaque children[32]<V>; }`, the nodes each as
//! `optional<Node>`, one after the other.

use std::collections::BTreeSet;

use conclave_channel::chain::entry_hash;
use conclave_names::{Hash, limits};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize, VarInt};
use mls_rs_core::crypto::CipherSuiteProvider;
use sha2::{Digest, Sha256};

use crate::seal::{Purpose, SealError, Seed};

/// Version of the chunks that this code writes and reads.
const VERSION: u8 = 1;

/// Leaves of a chunk of level 0, and children of one of a higher level.
const ARITY: usize = 16;

/// Nodes of a chunk of level 0 and the parent that follows it.
const SPAN: usize = 2 * ARITY;

/// Levels that the largest group needs: 16^5 leaves.
const LEVELS: u8 = 5;

/// Why bytes are no tree, or chunks of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The exported tree does not decode.
    #[error("the ratchet tree does not decode")]
    Tree,
    /// A chunk does not decode, or is not of the level at which it is named.
    #[error("a chunk of the ratchet tree does not decode")]
    Chunk,
    /// A chunk was given that nobody asked for, or with other bytes than its name says.
    #[error("a chunk of the ratchet tree is not the one that was named")]
    Name,
    /// There are more chunks than the tree of any group has.
    #[error("the ratchet tree has more chunks than that of any group")]
    Size,
    /// Not all chunks were given.
    #[error("chunks of the ratchet tree are missing")]
    Missing,
    /// A chunk does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// The nodes of a ratchet tree, in the order of RFC 9420, section 7.8, without the blank ones at the end.
pub trait Tree {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the node at a place is the same in both, or there is none in both.
    fn same(&self, other: &Self, index: usize) -> bool;

    /// Appends the node at a place as `optional<Node>`, if there is one.
    ///
    /// # Errors
    /// [`TreeError::Tree`] if it cannot be encoded.
    fn write(&self, index: usize, out: &mut Vec<u8>) -> Result<(), TreeError>;
}

/// The nodes of a tree as mls-rs has them: nothing is encoded to be compared.
#[derive(Debug, Clone, Copy)]
pub struct Held<'a, N>(pub &'a [N]);

impl<N: PartialEq + MlsEncode> Tree for Held<'_, N> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn same(&self, other: &Self, index: usize) -> bool {
        self.0.get(index) == other.0.get(index)
    }

    fn write(&self, index: usize, out: &mut Vec<u8>) -> Result<(), TreeError> {
        self.0.get(index).map_or(Ok(()), |node| node.mls_encode(out)).map_err(|_| TreeError::Tree)
    }
}

/// The nodes of an exported tree, each as `optional<Node>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nodes<'a>(Vec<&'a [u8]>);

impl Tree for Nodes<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn same(&self, other: &Self, index: usize) -> bool {
        self.0.get(index) == other.0.get(index)
    }

    fn write(&self, index: usize, out: &mut Vec<u8>) -> Result<(), TreeError> {
        out.extend_from_slice(self.0.get(index).copied().unwrap_or_default());
        Ok(())
    }
}

/// Reads the length that stands before a vector, and skips the vector.
fn skip_vector(rest: &mut &[u8]) -> Result<(), TreeError> {
    let length = u32::from(VarInt::mls_decode(rest).map_err(|_| TreeError::Tree)?);
    skip(rest, usize::try_from(length).map_err(|_| TreeError::Tree)?)
}

fn skip(rest: &mut &[u8], length: usize) -> Result<(), TreeError> {
    *rest = rest.get(length..).ok_or(TreeError::Tree)?;
    Ok(())
}

fn byte(rest: &mut &[u8]) -> Result<u8, TreeError> {
    let (first, tail) = rest.split_first().ok_or(TreeError::Tree)?;
    *rest = tail;
    Ok(*first)
}

/// Skips an `optional<Node>` (RFC 9420, sections 7.1, 7.2 and 7.8).
fn skip_node(rest: &mut &[u8]) -> Result<(), TreeError> {
    match byte(rest)? {
        0 => return Ok(()),
        1 => {}
        _ => return Err(TreeError::Tree),
    }
    match byte(rest)? {
        1 => {
            skip_vector(rest)?; // encryption key
            skip_vector(rest)?; // signature key
            skip(rest, 2)?; // credential type
            skip_vector(rest)?; // credential
            for _capability in 0..5 {
                skip_vector(rest)?;
            }
            match byte(rest)? {
                1 => skip(rest, 16)?, // lifetime
                2 => {}
                3 => skip_vector(rest)?, // parent hash
                _ => return Err(TreeError::Tree),
            }
            skip_vector(rest)?; // extensions
            skip_vector(rest) // signature
        }
        2 => {
            skip_vector(rest)?; // encryption key
            skip_vector(rest)?; // parent hash
            skip_vector(rest) // unmerged leaves
        }
        _ => Err(TreeError::Tree),
    }
}

/// Splits nodes that stand one after the other.
fn split(bytes: &[u8]) -> Result<Vec<&[u8]>, TreeError> {
    let (mut rest, mut nodes) = (bytes, Vec::new());
    while !rest.is_empty() {
        let start = rest;
        skip_node(&mut rest)?;
        nodes.push(start.get(..start.len() - rest.len()).ok_or(TreeError::Tree)?);
    }
    Ok(nodes)
}

impl<'a> Nodes<'a> {
    /// Splits an exported tree into its nodes. What they say is for MLS to judge.
    ///
    /// # Errors
    /// [`TreeError::Tree`], [`TreeError::Size`].
    pub fn parse(exported: &'a [u8]) -> Result<Self, TreeError> {
        let mut rest = exported;
        let length = u32::from(VarInt::mls_decode(&mut rest).map_err(|_| TreeError::Tree)?);
        if u64::from(length) != rest.len() as u64 {
            return Err(TreeError::Tree);
        }
        let nodes = split(rest)?;
        if nodes.len() as u64 > 2 * limits::MEMBERS {
            return Err(TreeError::Size);
        }
        Ok(Self(nodes))
    }
}

/// Nodes of a chunk of this level and all chunks under it, and the parent that follows.
fn span(level: u8) -> usize {
    SPAN * ARITY.pow(level.into())
}

/// Chunks of a level in a tree of so many nodes.
fn chunks(nodes: usize, level: u8) -> usize {
    nodes.div_ceil(span(level)).max(1)
}

/// The level with one chunk, which has no parent after it.
fn top(nodes: usize) -> u8 {
    (0..LEVELS).find(|level| nodes < span(*level)).unwrap_or(LEVELS)
}

/// Places of the nodes that a chunk has itself.
fn own(level: u8, index: usize) -> impl Iterator<Item = usize> {
    let below = level.checked_sub(1).map(span);
    let (first, count, step) = match below {
        None => (index * SPAN, SPAN - 1, 1),
        // The parents that follow its children, but for the last child's.
        Some(below) => ((index * ARITY + 1) * below - 1, ARITY - 1, below),
    };
    (0..count).map(move |place| first + place * step)
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct Chunk {
    version: u8,
    level: u8,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    nodes: Vec<u8>,
    children: Vec<Hash>,
}

/// The names of a tree's chunks, level by level.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChunkNames(Vec<Vec<Hash>>);

impl ChunkNames {
    /// The name of the whole.
    #[must_use]
    pub fn root(&self) -> Option<Hash> {
        self.0.last().and_then(|top| top.first()).copied()
    }

    /// All names.
    pub fn all(&self) -> impl Iterator<Item = &Hash> {
        self.0.iter().flatten()
    }

    fn get(&self, level: u8, index: usize) -> Option<Hash> {
        self.0.get(usize::from(level))?.get(index).copied()
    }
}

/// What a commit changes of a tree's chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Names of all chunks of the new tree.
    pub names: ChunkNames,
    /// Chunks that the tree before had not, sealed.
    pub added: Vec<(Hash, Vec<u8>)>,
    /// Chunks that the new tree has not.
    pub dropped: Vec<Hash>,
}

/// A tree with the key under which its chunks are sealed.
#[derive(Debug)]
pub struct Keyed<'a, T> {
    /// The tree key.
    pub key: &'a Seed,
    /// The nodes.
    pub nodes: &'a T,
}

impl<T> Clone for Keyed<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Keyed<'_, T> {}

fn seal<P: CipherSuiteProvider>(suite: &P, key: &Seed, chunk: &Chunk) -> Result<(Hash, Vec<u8>), TreeError> {
    let plaintext = chunk.mls_encode_to_vec().map_err(|_| TreeError::Chunk)?;
    let digest = Sha256::digest(&plaintext);
    let sealed = key.seal_again(suite, Purpose::Tree, b"", plaintext, &digest)?;
    Ok((entry_hash(&sealed), sealed))
}

/// Names all chunks of a tree.
///
/// # Errors
/// [`TreeError::Seal`] if the cryptographic library fails.
pub fn names<P: CipherSuiteProvider, T: Tree>(suite: &P, tree: Keyed<'_, T>) -> Result<ChunkNames, TreeError> {
    Ok(changes(suite, None, tree, tree)?.names)
}

/// What is to be uploaded and what may be forgotten when one tree follows another. Without the names of the tree before,
/// or if the key is another, it is the whole tree.
///
/// # Errors
/// [`TreeError::Seal`] if the cryptographic library fails, [`TreeError::Tree`] if a node cannot be encoded.
pub fn changes<P: CipherSuiteProvider, T: Tree>(
    suite: &P,
    names: Option<&ChunkNames>,
    before: Keyed<'_, T>,
    after: Keyed<'_, T>,
) -> Result<Changed, TreeError> {
    let known = names.filter(|_| before.key == after.key);
    let nodes = after.nodes.len();
    let (mut all, mut added) = (Vec::<Vec<Hash>>::new(), Vec::new());
    for level in 0..=top(nodes) {
        let mut row = Vec::with_capacity(chunks(nodes, level));
        for index in 0..chunks(nodes, level) {
            let named = |level: u8, index: usize| known.and_then(|names| names.get(level, index));
            let below = all.last().map(Vec::as_slice).unwrap_or_default();
            let first = index * ARITY;
            let children: Vec<Hash> = below.iter().skip(first).take(ARITY).copied().collect();
            // Chunks of one name have the same content.
            let same = |level: u8| {
                let under = level.checked_sub(1);
                let count = known.and_then(|names| names.0.get(usize::from(under?))).map_or(0, Vec::len);
                count.saturating_sub(first).min(ARITY) == children.len()
                    && (first..)
                        .zip(&children)
                        .all(|(child, name)| under.and_then(|under| named(under, child)) == Some(*name))
            };
            let kept = named(level, index).filter(|_| {
                (level == 0 || same(level)) && own(level, index).all(|place| before.nodes.same(after.nodes, place))
            });
            if let Some(name) = kept {
                row.push(name);
                continue;
            }
            let mut nodes = Vec::new();
            for place in own(level, index) {
                after.nodes.write(place, &mut nodes)?;
            }
            let (name, sealed) = seal(suite, after.key, &Chunk { version: VERSION, level, nodes, children })?;
            row.push(name);
            added.push((name, sealed));
        }
        all.push(row);
    }
    let after = ChunkNames(all);
    let kept: BTreeSet<_> = after.all().copied().collect();
    let had: BTreeSet<_> = names.into_iter().flat_map(ChunkNames::all).copied().collect();
    // Equal chunks have one name: each counts once.
    let mut new = BTreeSet::new();
    added.retain(|(name, _)| !had.contains(name) && new.insert(*name));
    Ok(Changed { names: after, added, dropped: had.difference(&kept).copied().collect() })
}

/// Puts a tree together again, chunk by chunk.
pub struct Assembly {
    key: Seed,
    /// By place from the top; what is wanted has no content yet.
    places: Vec<Place>,
    held: u64,
}

impl std::fmt::Debug for Assembly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Assembly").field("chunks", &self.places.len()).finish_non_exhaustive()
    }
}

struct Place {
    name: Hash,
    /// None at the top: the chunk says its level itself.
    level: Option<u8>,
    content: Option<Content>,
}

struct Content {
    nodes: Vec<u8>,
    /// Places of the children.
    children: std::ops::Range<usize>,
}

impl Assembly {
    /// Begins with the name of the whole.
    #[must_use]
    pub fn new(root: Hash, key: Seed) -> Self {
        Self { key, places: vec![Place { name: root, level: None, content: None }], held: 0 }
    }

    /// Names of the chunks that are wanted now.
    pub fn wanted(&self) -> impl Iterator<Item = Hash> {
        self.places.iter().filter(|place| place.content.is_none()).map(|place| place.name)
    }

    /// Takes a chunk.
    ///
    /// # Errors
    /// [`TreeError`] if it is not one that is wanted; nothing has changed then.
    pub fn give<P: CipherSuiteProvider>(&mut self, suite: &P, sealed: &[u8]) -> Result<(), TreeError> {
        let name = entry_hash(sealed);
        let wanted = |place: &Place| place.name == name && place.content.is_none();
        // The same content in two places has one name: both get it.
        let levels: Vec<_> = self.places.iter().filter(|place| wanted(place)).map(|place| place.level).collect();
        if levels.is_empty() {
            return Err(TreeError::Name);
        }
        let bytes = self.key.open(suite, Purpose::Tree, b"", sealed)?;
        let mut rest = bytes.as_slice();
        let chunk = Chunk::mls_decode(&mut rest).map_err(|_| TreeError::Chunk)?;
        let leaf = chunk.level == 0;
        if !rest.is_empty()
            || chunk.version != VERSION
            || chunk.level > LEVELS
            || leaf != chunk.children.is_empty()
            || chunk.children.len() > ARITY
            || levels.iter().flatten().any(|level| *level != chunk.level)
        {
            return Err(TreeError::Chunk);
        }
        self.held = self.held.saturating_add(bytes.len() as u64);
        let most = 2 * limits::MEMBERS / ARITY as u64;
        if self.held > limits::BLOB || (self.places.len() + levels.len() * chunk.children.len()) as u64 > most {
            return Err(TreeError::Size);
        }
        let count = self.places.len();
        for index in 0..count {
            let start = self.places.len();
            let Some(place) = self.places.get_mut(index).filter(|place| place.name == name) else { continue };
            if place.content.is_some() {
                continue;
            }
            place.content = Some(Content { nodes: chunk.nodes.clone(), children: start..start + chunk.children.len() });
            let level = chunk.level.checked_sub(1);
            self.places.extend(chunk.children.iter().map(|name| Place { name: *name, level, content: None }));
        }
        Ok(())
    }

    /// The exported tree, once all chunks are there.
    ///
    /// # Errors
    /// [`TreeError::Missing`], [`TreeError::Chunk`], [`TreeError::Size`].
    pub fn finish(&self) -> Result<Vec<u8>, TreeError> {
        let mut nodes = Vec::new();
        self.write(0, &mut nodes)?;
        let length = u32::try_from(nodes.len()).ok().and_then(|length| VarInt::try_from(length).ok());
        let mut exported = length.ok_or(TreeError::Size)?.mls_encode_to_vec().map_err(|_| TreeError::Size)?;
        exported.append(&mut nodes);
        Ok(exported)
    }

    fn write(&self, place: usize, out: &mut Vec<u8>) -> Result<(), TreeError> {
        let content = self.places.get(place).and_then(|place| place.content.as_ref()).ok_or(TreeError::Missing)?;
        if content.children.is_empty() {
            out.extend_from_slice(&content.nodes);
            return Ok(());
        }
        // Between two children stands the parent of both.
        let mut between = split(&content.nodes).map_err(|_| TreeError::Chunk)?.into_iter();
        for child in content.children.clone() {
            self.write(child, out)?;
            if let Some(node) = between.next() {
                out.extend_from_slice(node);
            }
        }
        if between.next().is_some() { Err(TreeError::Chunk) } else { Ok(()) }
    }
}

#[cfg(test)]
#[path = "tree_chunks_tests.rs"]
mod tests;
