use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::crypto::{self, SuiteProvider};

fn suite() -> SuiteProvider {
    crypto::suite(crypto::DEFAULT_SUITE).unwrap()
}

fn key(byte: u8) -> Seed {
    Seed::from_slice(&[byte; 32]).unwrap()
}

fn vector(bytes: &[u8]) -> Vec<u8> {
    let mut out = VarInt::try_from(bytes.len()).unwrap().mls_encode_to_vec().unwrap();
    out.extend_from_slice(bytes);
    out
}

/// A node of the form of RFC 9420: a leaf at even places, a parent at odd ones.
fn node(place: usize, content: Option<u8>) -> Vec<u8> {
    let Some(content) = content else { return vec![0] };
    let opaque = |len: usize| vector(&vec![content; len]);
    if place % 2 == 1 {
        return [vec![1, 2], opaque(32), opaque(32), opaque(usize::from(content % 9) * 4)].concat();
    }
    let source = match content % 3 {
        0 => [vec![1], vec![content; 16]].concat(),
        1 => vec![2],
        _ => [vec![3], opaque(32)].concat(),
    };
    let capabilities = vec![0; 5];
    [vec![1, 1], opaque(32), opaque(32), vec![0, 2], opaque(300), capabilities, source, opaque(90), opaque(64)].concat()
}

fn export(nodes: &[Option<u8>]) -> Vec<u8> {
    let all: Vec<u8> = nodes.iter().enumerate().flat_map(|(place, content)| node(place, *content)).collect();
    vector(&all)
}

/// Chunks, as a server keeps them.
#[derive(Default, Clone)]
struct Blobs(BTreeMap<Hash, Vec<u8>>);

impl Blobs {
    fn apply(&mut self, changed: &Changed) {
        for name in &changed.dropped {
            assert!(self.0.remove(name).is_some(), "what is dropped was there");
        }
        for (name, sealed) in &changed.added {
            assert!(self.0.insert(*name, sealed.clone()).is_none(), "what is added was not there");
        }
    }

    fn fetch(&self, root: Hash, key: &Seed) -> Result<Vec<u8>, TreeError> {
        let mut assembly = Assembly::new(root, key.clone());
        loop {
            let Some(name) = assembly.wanted().next() else { return assembly.finish() };
            assembly.give(&suite(), self.0.get(&name).ok_or(TreeError::Missing)?)?;
        }
    }
}

fn whole(exported: &[u8], tree_key: &Seed) -> Changed {
    let (none, nodes) = (Nodes(Vec::new()), Nodes::parse(exported).unwrap());
    changes(&suite(), None, Keyed { key: tree_key, nodes: &none }, Keyed { key: tree_key, nodes: &nodes }).unwrap()
}

fn step(before: &[u8], names: &ChunkNames, after: &[u8], tree_key: &Seed) -> Changed {
    let (old, new) = (Nodes::parse(before).unwrap(), Nodes::parse(after).unwrap());
    changes(&suite(), Some(names), Keyed { key: tree_key, nodes: &old }, Keyed { key: tree_key, nodes: &new }).unwrap()
}

#[test]
fn trees_of_every_length_round_trip() {
    for length in (0..70).chain([511, 512, 513, 1023, 1024, 1025, 8191, 8192, 8193]) {
        let nodes: Vec<_> = (0..length).map(|place| Some(u8::try_from(place % 251).unwrap())).collect();
        let exported = export(&nodes);
        let changed = whole(&exported, &key(1));
        let mut blobs = Blobs::default();
        for (name, sealed) in &changed.added {
            blobs.0.insert(*name, sealed.clone());
        }
        assert_eq!(blobs.fetch(changed.names.root().unwrap(), &key(1)).unwrap(), exported, "{length}");
    }
}

#[test]
fn one_leaf_changes_one_chunk_a_level_and_anybody_names_them_alike() {
    let mut nodes: Vec<_> = (0..20_001).map(|place| Some(u8::try_from(place % 256).unwrap())).collect();
    // No two chunks alike.
    for chunk in 0..nodes.len() / 32 {
        let [_, _, high, low] = u32::try_from(chunk).unwrap().to_be_bytes();
        (nodes[chunk * 32], nodes[chunk * 32 + 2]) = (Some(high), Some(low));
    }
    let before = export(&nodes);
    let first = whole(&before, &key(1));
    nodes[7_004] = nodes[7_004].map(|content| content.wrapping_add(1));
    let after = export(&nodes);
    let changed = step(&before, &first.names, &after, &key(1));
    assert_eq!((changed.added.len(), changed.dropped.len()), (4, 4));
    let bytes: usize = changed.added.iter().map(|(_, sealed)| sealed.len()).sum();
    assert!(bytes < 24 * 1024, "{bytes}");
    assert_eq!(changed.names, whole(&after, &key(1)).names);
    // Under another key everything is another.
    let nodes = Nodes::parse(&after).unwrap();
    let other = Keyed { key: &key(2), nodes: &nodes };
    let old = Nodes::parse(&before).unwrap();
    let renewed = changes(&suite(), Some(&first.names), Keyed { key: &key(1), nodes: &old }, other).unwrap();
    assert_eq!(renewed.dropped.len(), first.names.all().count());
    assert_eq!(renewed.added.len(), first.names.all().count());
}

#[test]
fn hostile_chunks_are_refused() {
    let nodes: Vec<_> = (0..100).map(|place| Some(u8::try_from(place).unwrap())).collect();
    let exported = export(&nodes);
    let changed = whole(&exported, &key(1));
    let blobs: BTreeMap<_, _> = changed.added.iter().cloned().collect();
    let root = changed.names.root().unwrap();
    let mut assembly = Assembly::new(root, key(1));
    // Not asked for, changed, under another key, twice.
    let leaf = changed.names.get(0, 1).unwrap();
    assert_eq!(assembly.give(&suite(), &blobs[&leaf]), Err(TreeError::Name));
    let mut bad = blobs[&root].clone();
    bad[40] ^= 1;
    assert_eq!(assembly.give(&suite(), &bad), Err(TreeError::Name));
    assert!(matches!(Assembly::new(root, key(2)).give(&suite(), &blobs[&root]), Err(TreeError::Seal(_))));
    assert_eq!(assembly.finish(), Err(TreeError::Missing));
    assembly.give(&suite(), &blobs[&root]).unwrap();
    assert_eq!(assembly.give(&suite(), &blobs[&root]), Err(TreeError::Name));
    assert_eq!(assembly.finish(), Err(TreeError::Missing));

    // A chunk that names itself among its children's names cannot be made; one that goes on for ever can.
    let chunk = |level, nodes: &[u8], children: Vec<Hash>| {
        seal(&suite(), &key(1), &Chunk { version: VERSION, level, nodes: nodes.to_vec(), children }).unwrap()
    };
    let (below, sealed) = chunk(0, &[0], Vec::new());
    for (name, top) in [
        chunk(2, &[], vec![below]),     // a level is left out
        chunk(1, &[0, 0], vec![below]), // more parents than places for them
        chunk(1, &[9], vec![below]),    // no node
    ] {
        let mut assembly = Assembly::new(name, key(1));
        assembly.give(&suite(), &top).unwrap();
        let given = assembly.give(&suite(), &sealed);
        assert!(given.and_then(|()| assembly.finish().map(drop)).is_err());
    }
    for (name, top) in [chunk(1, &[0], Vec::new()), chunk(0, &[0], vec![below]), chunk(9, &[], vec![below])] {
        assert_eq!(Assembly::new(name, key(1)).give(&suite(), &top), Err(TreeError::Chunk));
    }
    let mut name = below;
    let mut tower = vec![sealed];
    for level in 1..=LEVELS {
        let (next, sealed) = chunk(level, &[], vec![name; ARITY]);
        tower.push(sealed);
        name = next;
    }
    let mut assembly = Assembly::new(name, key(1));
    let bomb = tower.iter().rev().try_for_each(|sealed| assembly.give(&suite(), sealed));
    assert_eq!(bomb, Err(TreeError::Size));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn whatever_commits_do_the_server_has_the_tree(
        start in prop::collection::vec(prop::option::of(any::<u8>()), 1..400),
        edits in prop::collection::vec((any::<prop::sample::Index>(), prop::option::of(any::<u8>()), 0..40usize, any::<bool>()), 1..12),
    ) {
        let mut nodes = start;
        let mut exported = export(&nodes);
        let mut names = whole(&exported, &key(1)).names;
        let mut blobs = Blobs::default();
        for (name, sealed) in whole(&exported, &key(1)).added {
            blobs.0.insert(name, sealed);
        }
        for (place, content, grow, shrink) in edits {
            let place = place.index(nodes.len());
            nodes[place] = content;
            if shrink {
                nodes.truncate(nodes.len().saturating_sub(grow).max(1));
            } else {
                nodes.extend((0..grow).map(|n| Some(u8::try_from(n).unwrap())));
            }
            let next = export(&nodes);
            let changed = step(&exported, &names, &next, &key(1));
            blobs.apply(&changed);
            prop_assert_eq!(blobs.fetch(changed.names.root().unwrap(), &key(1)).unwrap(), next.clone());
            (exported, names) = (next, changed.names);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Nodes::parse(&bytes);
        let _ = Assembly::new(Hash::new([0; 32]), key(1)).give(&suite(), &bytes);
    }
}
